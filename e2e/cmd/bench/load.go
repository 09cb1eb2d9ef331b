package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// A job is what one load process is to do. Requests are numbered from 0.
type job struct {
	Address     string // host:port
	From        string // IPv4 address of the client; "" = whichever
	Target      string // path and query
	User        string // "" = anonymous; with Users, the beginning of their names
	Users       int    // 0 = one user; otherwise request n is made by number First + n mod Users
	First       int
	Password    string
	Guess       bool // each request has a password of its own
	Connections int
	Requests    int           // the end, after so many; 0 = no such end
	Duration    time.Duration // the end, after so long; 0 = no such end
	Rate        float64       // open loop: arrivals a second, whether answers have come or not; 0 = closed loop

	server *process // who answers; nil when we have not started it
}

// An outcome is what became of a job.
type outcome struct {
	Answers             map[int]int    // by HTTP status
	Faults              map[string]int // what is no proper answer
	Elapsed             time.Duration  // from the first request to the last answer
	P50, P99, P999, Max time.Duration  // of answers, from when the request was due

	cpu time.Duration // that the server took
}

// rate is how many tokens there were in a second.
func (o outcome) rate() float64 { return float64(o.Answers[200]) / o.Elapsed.Seconds() }

// bad is what was not answered by a token.
func (o outcome) bad() int {
	bad := 0
	for status, n := range o.Answers {
		if status != 200 {
			bad += n
		}
	}
	for _, n := range o.Faults {
		bad += n
	}
	return bad
}

// String lists answers and faults, each with its number.
func (o outcome) String() string {
	var parts []string
	for _, status := range slices.Sorted(maps.Keys(o.Answers)) {
		parts = append(parts, fmt.Sprintf("%d × %d", o.Answers[status], status))
	}
	for _, fault := range slices.Sorted(maps.Keys(o.Faults)) {
		parts = append(parts, fmt.Sprintf("%d × %s", o.Faults[fault], fault))
	}
	return strings.Join(parts, ", ")
}

// numbered is a name with a number.
func numbered(prefix string, n int) string { return string(appendNumber([]byte(prefix), n)) }

func appendNumber(b []byte, n int) []byte {
	for unit := 100_000; unit > n && unit > 1; unit /= 10 {
		b = append(b, '0')
	}
	return strconv.AppendInt(b, int64(n), 10)
}

// runLoad is the role "load": it reads a job and writes its outcome.
func runLoad(in io.Reader, out io.Writer) error {
	var j job
	if err := json.NewDecoder(in).Decode(&j); err != nil {
		return err
	}
	debug.SetGCPercent(-1) // requests allocate nothing
	o, err := load(j)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(o)
}

// load does a job with a thread for every four cores: a client must not take from the server what it measures.
func load(j job) (outcome, error) {
	address, err := net.ResolveTCPAddr("tcp", j.Address)
	if err != nil {
		return outcome{}, err
	}
	loops := make([]*loop, min(max(1, runtime.NumCPU()/4), j.Connections))
	var group sync.WaitGroup
	errs := make([]error, len(loops))
	for i := range loops {
		l := &loop{job: j, address: address, faults: map[string]int{}}
		l.schedule = schedule{next: i, step: len(loops), requests: j.Requests, end: j.Duration}
		if j.Rate > 0 {
			l.interval = float64(time.Second) / j.Rate
		}
		l.conns = make([]conn, j.Connections/len(loops))
		loops[i] = l
		group.Go(func() { errs[i] = l.run() })
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		return outcome{}, err
	}
	o := outcome{Answers: map[int]int{}, Faults: map[string]int{}}
	var all histogram
	for _, l := range loops {
		all.merge(&l.latency)
		o.Elapsed = max(o.Elapsed, l.last)
		for status, n := range l.answers {
			if n > 0 {
				o.Answers[status] += n
			}
		}
		for fault, n := range l.faults {
			o.Faults[fault] += n
		}
	}
	o.P50, o.P99, o.P999, o.Max = all.quantile(0.5), all.quantile(0.99), all.quantile(0.999), all.max
	return o, nil
}

// A schedule says when a request is due: in a closed loop at once, in an open one at its place in time, however late the
// answers before it are. Times count from the start.
type schedule struct {
	next     int     // number of the next request
	step     int     // from one to the next; the numbers between are other threads'
	interval float64 // ns from one number to the next; 0 = closed loop
	requests int     // 0 = no end
	end      time.Duration
}

// due returns the time at which the next request is due, or false when there is none any more.
func (s *schedule) due(now time.Duration) (time.Duration, bool) {
	at := now
	if s.interval > 0 {
		at = time.Duration(float64(s.next) * s.interval)
	}
	return at, (s.requests == 0 || s.next < s.requests) && (s.end == 0 || at < s.end)
}

// patience is how long answers are waited for after the end.
const patience = 15 * time.Second

// A loop drives connections from one thread.
type loop struct {
	schedule
	job     job
	address *net.TCPAddr
	start   time.Time
	poll    int
	conns   []conn
	idle    []int // numbers of connections without a request under way
	latency histogram
	answers [600]int
	faults  map[string]int
	last    time.Duration
}

type conn struct {
	fd   int
	due  time.Duration // of the request under way
	busy bool
	out  []byte
	in   []byte
	read int // bytes of in that have come
	text []byte
}

func (l *loop) run() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const prSetTimerSlack = 29 // wake up when asked to, not up to 50 µs later
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, prSetTimerSlack, 1, 0)

	var err error
	if l.poll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	defer syscall.Close(l.poll)
	for i := range l.conns {
		l.conns[i] = conn{fd: -1, in: make([]byte, 64<<10), out: make([]byte, 0, 16<<10), text: make([]byte, 0, 256)}
		defer func() { syscall.Close(l.conns[i].fd) }()
		if err := l.connect(i); err != nil {
			return err
		}
		l.idle = append(l.idle, i)
	}

	l.start = time.Now()
	events := make([]syscall.EpollEvent, len(l.conns))
	for {
		now := time.Since(l.start)
		wake, more := l.due(now)
		for more && wake <= now && len(l.idle) > 0 {
			if err := l.send(wake); err != nil {
				return err
			}
			wake, more = l.due(now)
		}
		busy := len(l.conns) - len(l.idle)
		if !more && busy == 0 {
			return nil
		}
		if l.end > 0 && now > l.end+patience {
			l.faults["no answer"] += busy
			for ; more; _, more = l.due(now) {
				l.faults["not sent"]++
				l.next += l.step
			}
			return nil
		}
		wait := patience
		if more && len(l.idle) > 0 {
			wait = min(wait, wake-now)
		}
		n, err := pollWait(l.poll, events, wait)
		if err != nil {
			return fmt.Errorf("epoll: %w", err)
		}
		for _, e := range events[:n] {
			if err := l.receive(int(e.Fd)); err != nil {
				return err
			}
		}
	}
}

// connect opens a connection, in the place of the one before.
func (l *loop) connect(i int) error {
	c := &l.conns[i]
	if c.fd >= 0 {
		syscall.Close(c.fd)
	}
	c.fd, c.busy, c.read = -1, false, 0
	family, to := syscall.AF_INET6, syscall.Sockaddr(&syscall.SockaddrInet6{Port: l.address.Port, Addr: [16]byte(l.address.IP.To16())})
	if v4 := l.address.IP.To4(); v4 != nil {
		family, to = syscall.AF_INET, &syscall.SockaddrInet4{Port: l.address.Port, Addr: [4]byte(v4)}
	}
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	c.fd = fd
	if from := net.ParseIP(l.job.From).To4(); from != nil {
		if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte(from)}); err != nil {
			return fmt.Errorf("binding to %s: %w", l.job.From, err)
		}
	}
	err = errors.Join(
		syscall.Connect(fd, to),
		syscall.SetNonblock(fd, true),
		syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1),
		syscall.EpollCtl(l.poll, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(i)}),
	)
	if err != nil {
		return fmt.Errorf("connecting to %s: %w", l.job.Address, err)
	}
	return nil
}

// send sends the next request, which was due at a time.
func (l *loop) send(due time.Duration) error {
	i := l.idle[len(l.idle)-1]
	l.idle = l.idle[:len(l.idle)-1]
	c := &l.conns[i]
	c.out, c.text = l.job.appendRequest(c.out[:0], c.text[:0], l.next)
	c.due, c.busy = due, true
	l.next += l.step
	if n, err := syscall.Write(c.fd, c.out); err != nil || n < len(c.out) {
		return l.lost(i, "request not taken")
	}
	return nil
}

// appendRequest appends the request of a number to out; text is room.
func (j *job) appendRequest(out, text []byte, n int) ([]byte, []byte) {
	out = append(out, "GET "...)
	out = append(out, j.Target...)
	out = append(out, " HTTP/1.1\r\nHost: "...)
	out = append(out, j.Address...)
	out = append(out, "\r\nUser-Agent: bench\r\n"...)
	if j.User != "" {
		text = append(text, j.User...)
		if j.Users > 0 {
			text = appendNumber(text, j.First+n%j.Users)
		}
		text = append(append(text, ':'), j.Password...)
		if j.Guess {
			text = appendNumber(text, n)
		}
		out = append(out, "Authorization: Basic "...)
		out = base64.StdEncoding.AppendEncode(out, text)
		out = append(out, "\r\n"...)
	}
	return append(out, "\r\n"...), text
}

// receive reads what has come on a connection.
func (l *loop) receive(i int) error {
	c := &l.conns[i]
	if c.read == len(c.in) {
		c.in = append(c.in, make([]byte, len(c.in))...)
	}
	n, err := syscall.Read(c.fd, c.in[c.read:])
	if err == syscall.EAGAIN || err == syscall.EINTR {
		return nil
	}
	if err != nil || n <= 0 {
		return l.lost(i, "connection lost")
	}
	c.read += n
	a, complete, err := parseAnswer(c.in[:c.read])
	switch {
	case err != nil:
		return l.lost(i, err.Error())
	case !complete:
		return nil
	case !c.busy:
		return l.lost(i, "answer without a request")
	}
	l.last = time.Since(l.start)
	l.latency.add(l.last - c.due)
	if a.status == 200 && !a.token {
		l.faults["200 without a token"]++
	} else {
		l.answers[a.status]++
	}
	c.busy, c.read = false, 0
	l.idle = append(l.idle, i)
	if a.last {
		return l.connect(i)
	}
	return nil
}

// lost counts a request under way as lost and opens the connection anew. That an idle one was closed is no fault.
func (l *loop) lost(i int, fault string) error {
	if l.conns[i].busy {
		l.faults[fault]++
		l.last = time.Since(l.start)
		l.idle = append(l.idle, i)
	}
	return l.connect(i)
}

type answer struct {
	status int
	token  bool // the body holds one
	last   bool // the server closes the connection
}

var errNotHTTP = errors.New("not an HTTP answer")

// parseAnswer reads an answer with a body of known length, or in chunks.
func parseAnswer(b []byte) (a answer, complete bool, err error) {
	head, body, found := bytes.Cut(b, []byte("\r\n\r\n"))
	if !found {
		return a, false, nil
	}
	line, fields, _ := bytes.Cut(head, []byte("\r\n"))
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return a, false, errNotHTTP
	}
	for _, digit := range line[9:12] {
		a.status = a.status*10 + int(digit) - '0'
	}
	if a.status < 200 || a.status > 599 {
		return a, false, errNotHTTP
	}
	for more := true; more; {
		line, fields, more = bytes.Cut(fields, []byte("\r\n"))
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			length := 0
			for _, digit := range value {
				length = length*10 + int(digit) - '0'
			}
			complete = len(body) >= length
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			complete = bytes.HasSuffix(body, []byte("0\r\n\r\n"))
		case bytes.EqualFold(name, []byte("Connection")):
			a.last = bytes.EqualFold(value, []byte("close"))
		}
	}
	a.token = bytes.Contains(body, []byte(`"eyJ`)) // {" in base64: how every signed token begins
	return a, complete, nil
}

// pollWait is epoll_pwait2: epoll_wait knows only whole milliseconds.
func pollWait(poll int, events []syscall.EpollEvent, wait time.Duration) (int, error) {
	const sysEpollPwait2 = 441 // on every architecture
	limit := syscall.NsecToTimespec(int64(max(0, wait)))
	n, _, errno := syscall.Syscall6(sysEpollPwait2, uintptr(poll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(unsafe.Pointer(&limit)), 0, 0)
	switch errno {
	case 0:
		return int(n), nil
	case syscall.EINTR:
		return 0, nil
	}
	return 0, errno
}
