package harness

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A server is not told to end when the thread ends on which Start was called: threads come and go.
func TestAProcessOutlivesAThread(t *testing.T) {
	var p *Process
	onAThreadThatEnds(func() { p = Start(t, nil, "sleep", "infinity") })
	select {
	case <-p.Ended():
		t.Fatal(p.Stop())
	case <-time.After(time.Second):
	}
	p.Kill()
}

// onAThreadThatEnds runs f on a thread, and returns when that has ended.
func onAThreadThatEnds(f func()) {
	thread := make(chan int)
	go func() {
		runtime.LockOSThread()            // never unlocked: the thread ends with the goroutine
		if unix.Gettid() == os.Getpid() { // all but the first
			onAThreadThatEnds(f)
			runtime.UnlockOSThread()
			thread <- 0 // which there is not
			return
		}
		f()
		thread <- unix.Gettid()
	}()
	task := fmt.Sprint("/proc/self/task/", <-thread)
	for {
		if _, err := os.Stat(task); err != nil {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// What ends unasked is told of, and what was asked to is not.
func TestAProcessThatEnds(t *testing.T) {
	p := Start(t, nil, "sh", "-c", "exit 3")
	<-p.Ended()
	if err := p.Stop(); err == nil {
		t.Error("a process that has ended by itself")
	}
	p.asked.Store(true) // for the cleanup

	for _, ask := range []func(p *Process){
		(*Process).Kill,
		func(p *Process) { p.Signal(unix.SIGTERM) },
	} {
		p := Start(t, nil, "sleep", "infinity")
		ask(p)
		<-p.Ended()
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	}
}

// No port is given twice.
func TestFreePort(t *testing.T) {
	seen := map[int]bool{}
	for range 100 {
		port := FreePort(t)
		if seen[port] {
			t.Fatalf("%d once more", port)
		}
		seen[port] = true
	}
}
