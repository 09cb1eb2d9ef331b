package doctor

import (
	"net/http"
	"strings"
)

// challenge is one of those in a WWW-Authenticate header (RFC 9110 §11.6.1), its scheme in lower case.
type challenge struct {
	scheme string
	params map[string]string
}

// challengeOf is the Bearer challenge of an answer, or else the first one.
func challengeOf(h http.Header) challenge {
	var first challenge
	for _, value := range h.Values("WWW-Authenticate") {
		for _, c := range parseChallenges(value) {
			if c.scheme == "bearer" {
				return c
			}
			if first.scheme == "" {
				first = c
			}
		}
	}
	return first
}

// parseChallenges reads challenges with commas between: of each a scheme, then name=value or name="value" with commas
// between. A word that no "=" follows is the scheme of the next one.
func parseChallenges(rest string) (challenges []challenge) {
	for {
		rest = strings.TrimLeft(rest, " ,\t=")
		if rest == "" {
			return challenges
		}
		end := strings.IndexAny(rest, " ,\t=")
		if end < 0 {
			end = len(rest)
		}
		name := strings.ToLower(rest[:end])
		rest = strings.TrimLeft(rest[end:], " \t")
		after, isParam := strings.CutPrefix(rest, "=")
		if !isParam || len(challenges) == 0 {
			challenges = append(challenges, challenge{name, map[string]string{}})
			continue
		}
		after = strings.TrimLeft(after, " \t")
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
		challenges[len(challenges)-1].params[name] = text.String()
	}
}
