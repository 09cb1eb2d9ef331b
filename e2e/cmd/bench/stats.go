package main

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
	"time"
)

// A histogram counts durations in a fixed number of buckets, none wider than 1/128 of what it holds. Adding allocates
// nothing.
type histogram struct {
	counts [buckets]uint64
	total  uint64
	max    time.Duration
}

const (
	parts   = 128                    // of each power of two
	buckets = (63-8)*parts + 2*parts // for every positive int64
)

// bucketOf numbers the buckets: below 2*parts each value has its own, above that the leading eight bits count.
func bucketOf(d time.Duration) int {
	v := uint64(max(0, d))
	shift := max(0, bits.Len64(v)-8)
	return shift*parts + int(v>>shift)
}

// highest is the largest duration in a bucket.
func highest(bucket int) time.Duration {
	shift := max(0, bucket/parts-1)
	return time.Duration(uint64(bucket-shift*parts+1)<<shift - 1)
}

func (h *histogram) add(d time.Duration) {
	h.counts[bucketOf(d)]++
	h.total++
	h.max = max(h.max, d)
}

func (h *histogram) merge(other *histogram) {
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.total += other.total
	h.max = max(h.max, other.max)
}

// quantile is the duration that a share q of all stays within.
func (h *histogram) quantile(q float64) time.Duration {
	rank, seen := uint64(math.Ceil(q*float64(h.total))), uint64(0)
	for i, n := range h.counts {
		if seen += n; seen >= rank && n > 0 {
			return min(highest(i), h.max)
		}
	}
	return 0
}

func median[T cmp.Ordered](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
