package users

import (
	"context"
	"time"
)

// Len is the number of users.
func (h *HTPasswd) Len() int { return len(h.users) }

// Unrounded lets refusals take the time that they take.
func (g *Guard) Unrounded() { g.pause = func(context.Context, time.Duration) {} }

// Overlook sets how many guesses are overlooked in a day.
func (g *Guard) Overlook(n int) { g.throttle.overlooked = n }
