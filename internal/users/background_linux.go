package users

import "syscall"

// niceness of threads that hash: next to others that want the core they get a tenth of it. Less, and a hash that waits for its
// core could hold up the garbage collector, which waits for every thread.
const niceness = 10

// giveWay lets the thread that calls it give way to all others, for good.
func giveWay() {
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, syscall.Gettid(), niceness) // of a thread, on Linux; else it is as it was
}
