package main

import (
	"fmt"
	"html"
	"io"
	"math"
	"strings"
)

// draw draws the cases b and e. Colours are in the middle of the scale: the same picture stands on white and on black.
func (r report) draw(out io.Writer) {
	const (
		width, left, right = 840, 330, 780 // of bars: right leaves room for a figure
		line, gap          = 16, 10
	)
	var body strings.Builder
	y := 24
	text := func(x, y int, class, s string) {
		fmt.Fprintf(&body, "<text x=%q y=%q class=%q>%s</text>\n", fmt.Sprint(x), fmt.Sprint(y), class, html.EscapeString(s))
	}

	most := 0.0
	for _, row := range r.Rows {
		if row.Case == "b" && row.Unit == "/s" {
			most = max(most, row.Value, row.Base)
		}
	}
	if most > 0 {
		text(0, y, "title", "Tokens a second: authserver, and a bare server that only signs them")
		y += gap
	}
	for _, row := range r.Rows {
		if row.Case != "b" || row.Unit != "/s" {
			continue
		}
		y += gap
		text(left-8, y+line+4, "end", fmt.Sprintf("%s (%s of the limit)", row.What, number(row.Ratio)))
		for _, bar := range []struct {
			class string
			value float64
		}{{"ours", row.Value}, {"limit", row.Base}} {
			length := int(bar.value / most * (right - left))
			fmt.Fprintf(&body, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" class=%q/>\n", left, y, length, line-2, bar.class)
			text(left+length+6, y+line-5, "figure", number(bar.value))
			y += line
		}
	}

	var waits []row
	least, longest := math.Inf(1), 0.0
	for _, row := range r.Rows {
		if row.Case == "e" && row.Detail != nil {
			waits = append(waits, row)
			least, longest = min(least, row.Detail["p50"]), max(longest, row.Detail["p99.9"])
		}
	}
	if len(waits) > 0 {
		from, to := math.Floor(math.Log10(least)), math.Ceil(math.Log10(longest))
		at := func(ms float64) int { return left + int((math.Log10(ms)-from)/(to-from)*(right-left)) }
		y += 3 * line
		text(0, y, "title", "How long remembered users wait, in ms: p50, p99 and, below, p99.9, at half of the highest rate")
		y += line + gap
		bottom := y + len(waits)*3*line
		for e := from; e <= to; e++ {
			x := at(math.Pow(10, e))
			fmt.Fprintf(&body, "<path d=\"M%d %dV%d\" class=\"grid\"/>\n", x, y-4, bottom)
			text(x, y-8, "middle", fmt.Sprint(math.Pow(10, e)))
		}
		for _, row := range waits {
			y += 2 * line
			text(left-8, y+4, "end", strings.TrimPrefix(row.What, "remembered users, p99, "))
			fmt.Fprintf(&body, "<path d=\"M%d %dH%d\" class=\"range\"/>\n", at(row.Detail["p50"]), y, at(row.Detail["p99.9"]))
			for _, point := range []struct {
				name, class string // labels go apart: the points can be close together
				dx, dy      int
			}{{"p50", "end", 4, -9}, {"p99", "figure", -4, -9}, {"p99.9", "middle", 0, 19}} {
				x := at(row.Detail[point.name])
				fmt.Fprintf(&body, "<circle cx=\"%d\" cy=\"%d\" r=\"4\" class=\"ours\"/>\n", x, y)
				text(x+point.dx, y+point.dy, point.class, number(row.Detail[point.name]))
			}
			y += line
		}
	}
	y += 2 * line
	text(0, y, "figure", r.Machine)

	fmt.Fprintf(out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %[1]d %[2]d" width="%[1]d" height="%[2]d">
<style>
text { font: 12px system-ui, sans-serif; fill: #6e7781 }
.title { font-size: 14px; font-weight: 600 }
.end { text-anchor: end }
.middle { text-anchor: middle }
.ours { fill: #2f81f7 }
.limit { fill: #8c959f }
.range { stroke: #2f81f7; stroke-width: 2 }
.grid { stroke: #8c959f; stroke-opacity: .4 }
</style>
%[3]s</svg>
`, width, y+gap, body.String())
}
