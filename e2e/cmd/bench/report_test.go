package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestBars(t *testing.T) {
	for _, c := range []struct {
		row  row
		want bool
	}{
		{row{Value: 8}.beside("", 10).ratioAtLeast(0.8), true},
		{row{Value: 7.9}.beside("", 10).ratioAtLeast(0.8), false},
		{row{Value: 30}.beside("", 10).ratioAtMost(3), true},
		{row{Value: 31}.beside("", 10).ratioAtMost(3), false},
		{row{Value: 0}.atMost(0), true},
		{row{Value: 1}.atMost(0), false},
	} {
		if c.row.Reached != c.want {
			t.Errorf("%+v: reached %v, want %v", c.row, c.row.Reached, c.want)
		}
	}
}

func TestThePictureIsXML(t *testing.T) {
	r := report{Machine: "a & b", Rows: []row{
		row{Case: "b", What: "ES256 <password>", Value: 800, Unit: "/s"}.beside("the limit", 1000),
		{Case: "e", What: "quiet", Value: 2, Unit: "ms", Detail: map[string]float64{"p50": 0.3, "p99": 2, "p99.9": 7}},
		{Case: "c", What: "a peer"},
	}}
	for _, r := range []report{r, {}} {
		var picture strings.Builder
		r.draw(&picture)
		decoder := xml.NewDecoder(strings.NewReader(picture.String()))
		for {
			if _, err := decoder.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%v\n%s", err, picture.String())
			}
		}
	}
}
