package document

// Faults lists the faults in an error.
func Faults(err error) []*Fault {
	faults, _ := split(err)
	return faults
}
