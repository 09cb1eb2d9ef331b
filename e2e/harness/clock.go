package harness

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A Clock is the wall clock of one running process, on amd64 Linux. It can be stepped, and the machine's own stays as it is.
//
// A static Go program reads the time from the code that the kernel maps into each process, the vDSO, where neither a
// preloaded library nor a time namespace reaches. But each process has a copy of its own as soon as it is written to.
type Clock struct {
	p      *Process
	offset int64 // where in its memory the seconds are that are added
}

// asksTheKernel is a clock_gettime that adds the eight bytes at its end to the seconds of CLOCK_REALTIME.
var asksTheKernel = []byte{
	0x57, 0x56, // push rdi; push rsi
	0xb8, 0xe4, 0, 0, 0, // mov eax, 228 (clock_gettime)
	0x0f, 0x05, // syscall
	0x5e, 0x5f, // pop rsi; pop rdi
	0x85, 0xff, 0x75, 0x0a, // test edi, edi; jnz to the ret
	0x48, 0x8b, 0x0d, 0x0a, 0, 0, 0, // mov rcx, [rip+10]
	0x48, 0x01, 0x0e, // add [rsi], rcx
	0xc3,                               // ret
	0x90, 0x90, 0x90, 0x90, 0x90, 0x90, // for the alignment of
	0, 0, 0, 0, 0, 0, 0, 0,
}

// ClockOf takes over the clock of a process.
func ClockOf(t testing.TB, p *Process) *Clock {
	t.Helper()
	c := &Clock{p: p}
	start, end := c.vdso(t)
	image := make([]byte, end-start)
	if _, err := c.memory(t).ReadAt(image, start); err != nil {
		t.Fatal(err)
	}
	file, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	symbols, err := file.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(symbols, func(s elf.Symbol) bool { return s.Name == "__vdso_clock_gettime" })
	if i < 0 {
		t.Fatal("the vDSO has no clock_gettime")
	}
	entry := int64(symbols[i].Value)
	code := int64(len(image)-len(asksTheKernel)) &^ 7 // nothing is at the end of its last page
	if slices.Max(image[code:]) != 0 {
		t.Fatal("the vDSO has no room left")
	}
	c.offset = start + code + int64(len(asksTheKernel)) - 8
	jump := append([]byte{0xe9}, binary.LittleEndian.AppendUint32(nil, uint32(code-entry-5))...)
	c.stopped(t, start, end, func() {
		c.write(t, start+code, asksTheKernel)
		c.write(t, start+entry, jump)
	})
	return c
}

// Set sets the clock so far before the machine's own; a negative time is behind it.
func (c *Clock) Set(t testing.TB, ahead time.Duration) {
	t.Helper()
	c.write(t, c.offset, binary.LittleEndian.AppendUint64(nil, uint64(ahead/time.Second)))
}

func (c *Clock) proc(name string) string { return fmt.Sprintf("/proc/%d/%s", c.p.PID(), name) }

func (c *Clock) vdso(t testing.TB) (start, end int64) {
	t.Helper()
	for line := range strings.Lines(string(ReadFile(t, c.proc("maps")))) {
		if strings.HasSuffix(line, "[vdso]\n") {
			if _, err := fmt.Sscanf(line, "%x-%x", &start, &end); err != nil {
				t.Fatal(err)
			}
			return start, end
		}
	}
	t.Fatal("the process has no vDSO")
	return 0, 0
}

func (c *Clock) memory(t testing.TB) *os.File {
	t.Helper()
	f, err := os.OpenFile(c.proc("mem"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func (c *Clock) write(t testing.TB, at int64, data []byte) {
	t.Helper()
	if _, err := c.memory(t).WriteAt(data, at); err != nil {
		t.Fatal(err)
	}
}

// stopped calls f while no thread of the process runs, and none is between start and end.
func (c *Clock) stopped(t testing.TB, start, end int64, f func()) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		if time.Now().After(deadline) {
			t.Fatal("the process is always looking at its clock")
		}
		c.p.Freeze(t)
		if c.outside(t, start, end) {
			break
		}
		c.p.Thaw(t)
		time.Sleep(time.Millisecond)
	}
	f()
	c.p.Thaw(t)
}

// outside tells whether all threads have stopped, and nowhere between start and end.
func (c *Clock) outside(t testing.TB, start, end int64) bool {
	t.Helper()
	threads, err := filepath.Glob(c.proc("task/*/syscall"))
	if err != nil || len(threads) == 0 {
		t.Fatal("the process has no threads", err)
	}
	for _, thread := range threads {
		text, err := os.ReadFile(thread)
		fields := strings.Fields(string(text)) // what it does, …, stack pointer, program counter
		if err != nil || len(fields) == 0 {    // it has just ended
			return false
		}
		var pc int64
		if _, err := fmt.Sscanf(fields[len(fields)-1], "0x%x", &pc); err != nil || start <= pc && pc < end { // "running" is no address
			return false
		}
	}
	return true
}
