package users

import (
	"syscall"
	"unsafe"
)

// giveWay lets the thread that calls it give way to all others, for good: it computes only while nobody else wants a core.
// SCHED_IDLE (sched(7)) is what does that at once: threads that are merely nice keep a core to the end of their slice,
// which is thirty requests long. It needs no privilege. Where it is not allowed (a strict seccomp filter), niceness has to do.
func giveWay() {
	const schedIdle = 5
	var noPriority struct{ priority int32 }                                                                                 // struct sched_param
	_, _, refused := syscall.RawSyscall(syscall.SYS_SCHED_SETSCHEDULER, 0, schedIdle, uintptr(unsafe.Pointer(&noPriority))) // 0 = this thread
	if refused != 0 {
		_ = syscall.Setpriority(syscall.PRIO_PROCESS, syscall.Gettid(), 19) // of a thread, on Linux
	}
}
