package main

import (
	"syscall"

	"authserver/internal/doctor"
)

// checkClock asks the kernel whether somebody keeps its clock right (adjtimex(2)).
func checkClock(r *doctor.Report) {
	const unsynchronised = 0x40 // STA_UNSYNC
	var t syscall.Timex
	if _, err := syscall.Adjtimex(&t); err != nil {
		return
	}
	if t.Status&unsynchronised != 0 {
		r.Add(fault("clock", doctor.Note, "nobody keeps the clock of this machine right, as far as the kernel knows", "Tokens are dated by it; registries refuse those of a clock that is a minute wrong.", doctor.Fix{Side: doctor.Machine, Do: "NTP, as by systemd-timesyncd or chrony"}))
		return
	}
	r.Add(doctor.Finding{Check: "clock", What: "is kept right"})
}
