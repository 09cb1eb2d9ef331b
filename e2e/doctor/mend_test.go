package doctor_test

import (
	"os"
	"os/exec"
	"strings"

	"authserver/e2e/harness"
)

// mend does what a fix says, to the letter and at the place that it names, and restarts whom it concerns.
func (w *world) mend(x fix) {
	w.Helper()
	switch {
	case strings.Contains(x.Do, "authserver key export"):
		w.handOver(x)
	case strings.HasPrefix(x.Do, "restart it"):
	default:
		w.edit(x)
	}
	switch x.Side {
	case "authserver":
		w.restartAuth()
	case "registry":
		w.registry.start()
	default:
		w.Fatalf("nobody here mends a %s: %s", x.Side, x.Do)
	}
}

// handOver runs the command that makes what a registry is to trust.
func (w *world) handOver(x fix) {
	w.Helper()
	command, _, _ := strings.Cut(x.Do, ", then restart")
	if key, made, ok := strings.Cut(command, ": FILE, made by: "); ok { // a key that is not there yet
		file := w.registry.trust + "." + key[strings.LastIndexByte(key, '.')+1:]
		x.Do = key + ": " + file
		w.edit(x)
		command = made + " > " + file
	}
	command = strings.Replace(command, " > FILE", " > "+w.registry.trust, 1)
	cmd := exec.Command("sh", "-ec", strings.Replace(command, "authserver", `"$PROGRAM"`, 1))
	cmd.Dir = w.auth.Dir
	cmd.Env = append(os.Environ(), "PROGRAM="+harness.Program(w, "authserver"))
	if out, err := cmd.CombinedOutput(); err != nil {
		w.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// edit puts "key: value" on the line that the fix names, or below it when another key stands there.
func (w *world) edit(x fix) {
	w.Helper()
	key, value, ok := strings.Cut(x.Do, ": ")
	if !ok {
		w.Fatalf("not a line of a file: %s", x.Do)
	}
	file, line, ok := x.place()
	if !ok { // of a registry whose configuration doctor has not seen
		if x.Side != "registry" {
			w.Fatalf("without a place: %s", x.Do)
		}
		file = w.registry.file
		for i, text := range strings.Split(string(harness.ReadFile(w, file)), "\n") {
			if strings.TrimSpace(text) == "token:" {
				line = i + 1
			}
		}
		w.registry.set(key[strings.LastIndexByte(key, '.')+1:], "")
	}
	lines := strings.Split(string(harness.ReadFile(w, file)), "\n")
	at := lines[line-1]
	text := strings.TrimLeft(at, " ")
	indent := len(at) - len(text)
	name := key[strings.LastIndexByte(key, '.')+1:]
	if item, ok := strings.CutPrefix(text, "- "); ok && !strings.HasPrefix(item, name+":") {
		at = strings.Repeat(" ", indent+2) + name + ": " + value
		lines = append(lines[:line], append([]string{at}, lines[line:]...)...)
	} else if i := strings.Index(at, name+":"); i >= 0 && !strings.HasPrefix(value, "- ") {
		lines[line-1] = at[:i] + name + ": " + value
	} else {
		if !strings.HasPrefix(value, "- ") { // an item of a list stands for itself
			value = name + ": " + value
		}
		lines = append(lines[:line], append([]string{strings.Repeat(" ", indent+2) + value}, lines[line:]...)...)
	}
	w.write(file, strings.Join(lines, "\n"))
}
