package users

import (
	"runtime"
	"syscall"
	"testing"
)

func policyOfThread() uintptr {
	policy, _, _ := syscall.RawSyscall(syscall.SYS_SCHED_GETSCHEDULER, 0, 0, 0)
	return policy
}

func TestOnlyTheThreadThatHashesGivesWay(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, during := policyOfThread(), uintptr(0)
	inBackground(func() { during = policyOfThread() })
	if during != 5 {
		t.Errorf("the thread that hashes has policy %d, want SCHED_IDLE", during)
	}
	for range 100 { // threads are used again: none may have kept it
		done := make(chan uintptr)
		go func() { done <- policyOfThread() }()
		if got := <-done; got != before {
			t.Fatalf("another thread has policy %d", got)
		}
	}
}
