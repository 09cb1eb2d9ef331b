package doctor

import (
	"net/http"
	"strings"
)

// challenge is a WWW-Authenticate header (RFC 9110 §11.6.1), its scheme in lower case.
type challenge struct {
	scheme string
	params map[string]string
}

// challengeOf is the Bearer challenge of an answer, or else the first one.
func challengeOf(h http.Header) challenge {
	var first challenge
	for _, value := range h.Values("WWW-Authenticate") {
		c := parseChallenge(value)
		if c.scheme == "bearer" {
			return c
		}
		if first.scheme == "" {
			first = c
		}
	}
	return first
}

// parseChallenge reads one challenge: a scheme, then name=value or name="value" with commas between.
func parseChallenge(value string) challenge {
	scheme, rest, _ := strings.Cut(strings.TrimSpace(value), " ")
	c := challenge{strings.ToLower(scheme), map[string]string{}}
	for {
		rest = strings.TrimLeft(rest, " ,\t")
		name, after, ok := strings.Cut(rest, "=")
		if !ok {
			return c
		}
		name = strings.ToLower(strings.TrimSpace(name))
		var text strings.Builder
		if quoted, isQuoted := strings.CutPrefix(after, `"`); isQuoted {
			i := 0
			for ; i < len(quoted) && quoted[i] != '"'; i++ {
				if quoted[i] == '\\' && i+1 < len(quoted) {
					i++
				}
				text.WriteByte(quoted[i])
			}
			rest = quoted[min(i+1, len(quoted)):]
		} else {
			end := strings.IndexAny(after, ", \t")
			if end < 0 {
				end = len(after)
			}
			text.WriteString(after[:end])
			rest = after[end:]
		}
		c.params[name] = text.String()
	}
}
