package users

// Len is the number of users.
func (h *HTPasswd) Len() int { return len(h.users) }
