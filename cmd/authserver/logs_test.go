package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// logCall is one place that writes to the log: its level ("" where it is chosen there) and constant text, and the names of what
// it adds.
type logCall struct {
	level, msg string
	keys       []string
}

func literal(e ast.Expr) (string, bool) {
	l, ok := e.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(l.Value)
	return text, err == nil
}

// logCalls finds them in the sources of the program, by the name of the logger.
func logCalls(t *testing.T) (calls []logCall) {
	t.Helper()
	isLog := func(e ast.Expr) bool {
		switch x := e.(type) {
		case *ast.Ident:
			return strings.EqualFold(x.Name, "log")
		case *ast.SelectorExpr:
			return strings.EqualFold(x.Sel.Name, "log")
		case *ast.CallExpr: // s.log(r)
			s, ok := x.Fun.(*ast.SelectorExpr)
			return ok && s.Sel.Name == "log"
		}
		return false
	}
	look := func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		method, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || !isLog(method.X) {
			return true
		}
		one, args := logCall{level: strings.ToUpper(method.Sel.Name)}, call.Args
		switch method.Sel.Name {
		case "Debug", "Info", "Warn", "Error":
		case "Log":
			one.level, args = "", args[2:]
		default:
			return true
		}
		if one.msg, ok = literal(args[0]); !ok { // a warning about keys
			return true
		}
		for i := 1; i < len(args); i += 2 {
			if key, ok := literal(args[i]); ok {
				one.keys = append(one.keys, key)
			}
		}
		calls = append(calls, one)
		return true
	}
	for _, root := range []string{".", "../../internal"} {
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err == nil {
				ast.Inspect(file, look)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(calls) < 20 {
		t.Fatalf("only %v", calls)
	}
	return calls
}

func TestEveryLogLineIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/logs.md")
	if err != nil {
		t.Fatal(err)
	}
	section, _, _ := strings.Cut(string(page), "\n## Audit log\n")
	documented := map[string]string{} // text to levels
	for _, m := range regexp.MustCompile("(?m)^\\| ([A-Z, ]+) \\| `([^`]+)` \\|").FindAllStringSubmatch(section, -1) {
		documented[m[2]] = m[1]
	}
	var fields []string
	for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]+`) \\| [^|]*\\|$").FindAllStringSubmatch(section, -1) {
		for _, m := range regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(row[1], -1) {
			fields = append(fields, m[1])
		}
	}
	written := map[string]bool{}
	for _, c := range logCalls(t) {
		written[c.msg] = true
		levels, ok := documented[c.msg]
		if !ok || !strings.Contains(levels, c.level) {
			t.Errorf("docs/logs.md does not explain %s %q", c.level, c.msg)
		}
		for _, key := range c.keys {
			if !slices.Contains(fields, key) {
				t.Errorf("docs/logs.md does not explain the field %s of %q", key, c.msg)
			}
		}
	}
	for msg := range documented {
		if !written[msg] {
			t.Errorf("docs/logs.md explains %q, which nobody writes", msg)
		}
	}
}
