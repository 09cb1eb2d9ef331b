package main

import (
	"math"
	"testing"
	"time"
)

func TestBucketsFollowOneAnotherWithoutAGap(t *testing.T) {
	for b := range buckets {
		last := highest(b)
		if got := bucketOf(last); got != b {
			t.Fatalf("bucket of %d is %d, want %d", last, got, b)
		}
		if b == buckets-1 {
			if last != math.MaxInt64 {
				t.Fatalf("the last bucket ends at %d", last)
			}
			continue
		}
		first := last + 1
		if got := bucketOf(first); got != b+1 {
			t.Fatalf("bucket of %d is %d, want %d", first, got, b+1)
		}
		if width := highest(b+1) - last; width > 1 && width > first/parts {
			t.Fatalf("the bucket that begins at %d is %d wide", first, width)
		}
	}
}

func TestQuantiles(t *testing.T) {
	var low, high histogram
	for i := 1; i <= 500; i++ {
		low.add(time.Duration(i) * time.Millisecond)
		high.add(time.Duration(i+500) * time.Millisecond)
	}
	low.merge(&high)
	for q, want := range map[float64]time.Duration{0: 1, 0.5: 500, 0.99: 990, 0.999: 999, 1: 1000} {
		want *= time.Millisecond
		if got := low.quantile(q); got < want || got > want+want/100 {
			t.Errorf("quantile %v of 1..1000 ms is %v, want %v", q, got, want)
		}
	}
	if low.total != 1000 || low.max != time.Second {
		t.Errorf("total %d, max %v", low.total, low.max)
	}
	if got := new(histogram).quantile(0.5); got != 0 {
		t.Errorf("quantile of nothing is %v", got)
	}
}

func TestAddingAllocatesNothing(t *testing.T) {
	var h histogram
	if n := testing.AllocsPerRun(100, func() { h.add(time.Millisecond) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestMedian(t *testing.T) {
	if got := median([]int{9, 1, 5}); got != 5 {
		t.Errorf("median is %d", got)
	}
}
