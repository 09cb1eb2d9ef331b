package main

import (
	"fmt"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// firstTokens is the case f: from the start of the program to the first token.
func (b *bench) firstTokens() error {
	s := setup{algorithm: "ES256", users: active, cost: b.cost, rules: usual, database: true}
	made, found := make([]float64, b.starts), make([]float64, b.starts)
	for n := range b.starts {
		t, err := b.prepare(s)
		if err != nil {
			return err
		}
		for _, took := range []*float64{&made[n], &found[n]} { // the second start finds the keys of the first
			if *took, err = b.firstToken(t); err != nil {
				return err
			}
		}
	}
	b.row(row{Case: "f", What: "start to first token", Value: median(found), Unit: "ms"}.atMost(150))
	b.row(row{Case: "f", What: "first start of all, keys are made", Value: median(made), Unit: "ms"})
	return nil
}

func (b *bench) firstToken(t *target) (float64, error) {
	begun := time.Now()
	if err := t.serve(b.ctx); err != nil {
		return 0, err
	}
	defer b.stop(t.process)
	err := t.await(func() error { _, err := t.anonymous().token(); return err })
	return milliseconds(time.Since(begun)), err
}

const (
	megabyte   = 1 << 20
	remembered = 10_000
)

// footprint is the case g: memory.
func (b *bench) footprint() error {
	t, err := b.start(setup{algorithm: "ES256", users: active, cost: b.cost, rules: usual, database: true})
	if err != nil {
		return err
	}
	defer b.stop(t)
	time.Sleep(time.Second)
	idle, err := t.memory("VmRSS")
	if err != nil {
		return err
	}
	b.row(row{Case: "g", What: "memory, idle", Value: idle / megabyte, Unit: "MB"}.atMost(40))

	j := t.job()
	if err := b.warm(j); err != nil {
		return err
	}
	var after [2]float64 // a tenth of the requests, all of them
	for i, requests := range []int{b.requests / 10, b.requests - b.requests/10} {
		j.Requests = requests
		if _, err := b.tokens("memory", j); err != nil {
			return err
		}
		if after[i], err = t.memory("VmRSS"); err != nil {
			return err
		}
	}
	most, err := t.memory("VmHWM")
	if err != nil {
		return err
	}
	b.row(row{
		Case: "g", What: fmt.Sprintf("memory after %d requests", b.requests), Value: after[1] / megabyte, Unit: "MB",
		Note: fmt.Sprintf("at most %.1f MB", most/megabyte),
	}.beside(fmt.Sprintf("after %d", b.requests/10), after[0]/megabyte).ratioAtMost(1.1))
	return b.perUser()
}

func (b *bench) perUser() error {
	t, err := b.start(setup{algorithm: "ES256", users: active + remembered, cost: bcrypt.MinCost, rules: usual})
	if err != nil {
		return err
	}
	defer b.stop(t)
	j := t.job()
	var heap [2]float64 // the same load by the same few users, and by many
	for i := range heap {
		if j.Requests = j.Users; i == 0 {
			j.Requests = remembered
		}
		if _, err := b.tokens("logins", j); err != nil {
			return err
		}
		if heap[i], err = t.metric("go_memstats_heap_inuse_bytes"); err != nil {
			return err
		}
		j.First, j.Users = active, remembered
	}
	b.row(row{Case: "g", What: fmt.Sprintf("memory for each of %d remembered users", remembered), Value: (heap[1] - heap[0]) / remembered, Unit: "bytes"}.atMost(1024))
	return nil
}
