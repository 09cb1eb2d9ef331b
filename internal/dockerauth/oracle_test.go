package dockerauth

import (
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// ask is one resource of a request to docker_auth.
type ask struct {
	account, typ, name, service string
	ip                          netip.Addr
	labels                      map[string][]string
	actions                     []string
}

// oracle decides as docker_auth 1.14 does, as far as its documents and its answers show: the first entry that matches
// decides. It shares nothing with the translation but the reading of the file.
func oracle(acl []entry, a ask) []string {
	for _, e := range acl {
		if !oracleMatches(e.match, a) {
			continue
		}
		if slices.Equal(e.actions, []string{"*"}) {
			return a.actions
		}
		var granted []string
		for _, action := range a.actions {
			if slices.Contains(e.actions, action) {
				granted = append(granted, action)
			}
		}
		return granted
	}
	return nil
}

// What stands between ${ and a colon may hold other variables: "${account}/${account:1}" is one, of a field that does not exist.
var oracleCapture = regexp.MustCompile(`\$\{(.+?):(\d+)\}`)

func oracleMatches(m match, a ask) bool {
	values := map[string]string{"account": a.account, "type": a.typ, "name": a.name, "service": a.service}
	patterns := map[string]*pattern{"account": m.account, "type": m.typ, "name": m.name, "service": m.service}
	var replace []string
	for name, v := range values {
		replace = append(replace, "${"+name+"}", regexp.QuoteMeta(v))
	}
	for _, p := range patterns {
		if p == nil {
			continue
		}
		for _, found := range oracleCapture.FindAllStringSubmatch(p.String(), -1) {
			source := patterns[strings.ToLower(found[1][:1])+found[1][1:]]
			if source == nil || !source.regex {
				continue
			}
			compiled, err := regexp.Compile(source.text)
			if err != nil {
				continue
			}
			groups := compiled.FindStringSubmatch(values[strings.ToLower(found[1][:1])+found[1][1:]])
			if n, _ := strconv.Atoi(found[2]); n >= 1 && n < len(groups) {
				replace = append(replace, found[0], groups[n]) // not quoted
			}
		}
	}
	for name, p := range patterns {
		if p != nil && !oracleWithLabels(p.String(), values[name], replace, a.labels) {
			return false
		}
	}
	if m.ip != nil {
		n, err := netip.ParsePrefix(m.ip.text)
		if err != nil {
			single := netip.MustParseAddr(m.ip.text).Unmap()
			n = netip.PrefixFrom(single, single.BitLen())
		}
		if !a.ip.IsValid() || !n.Contains(a.ip) {
			return false
		}
	}
	for _, l := range m.labels {
		if !slices.ContainsFunc(a.labels[l.name], func(v string) bool { return oracleText(l.pattern.String(), v, replace) }) {
			return false
		}
	}
	return true
}

// oracleWithLabels tries the pattern without, then with every combination of the labels that stand in it.
func oracleWithLabels(p, s string, replace []string, labels map[string][]string) bool {
	if oracleText(p, s, replace) {
		return true
	}
	combinations := [][]string{replace}
	used := false
	for name, values := range labels {
		if !strings.Contains(p, "${labels:"+name+"}") {
			continue
		}
		used = true
		var longer [][]string
		for _, c := range combinations {
			for _, v := range values {
				longer = append(longer, append(slices.Clone(c), "${labels:"+name+"}", v)) // not quoted
			}
		}
		combinations = longer
	}
	return used && slices.ContainsFunc(combinations, func(c []string) bool { return oracleText(p, s, c) })
}

func oracleText(p, s string, replace []string) bool {
	p = strings.NewReplacer(replace...).Replace(p)
	if n := len(p); n > 2 && p[0] == '/' && p[n-1] == '/' {
		matched, err := regexp.MatchString(p[1:n-1], s)
		return err == nil && matched
	}
	matched, err := path.Match(p, s)
	return err == nil && matched
}

func (a ask) String() string {
	return fmt.Sprintf("%q labels %v from %s at %q: %s:%s:%v", a.account, a.labels, a.ip, a.service, a.typ, a.name, a.actions)
}
