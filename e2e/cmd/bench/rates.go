package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// Sizes of a run.
type sizes struct {
	rounds   int           // in which what is compared takes turns; the median counts
	closed   time.Duration // of one closed loop
	open     time.Duration // of one open loop
	watch    time.Duration // of one open loop with others about
	crowd    int           // users who log in meanwhile
	logins   int           // first logins of one round
	starts   int
	requests int // that memory has to stay flat over
	growth   time.Duration
}

var (
	fullSizes = sizes{
		rounds: 5, closed: 3 * time.Second, open: 3 * time.Second, watch: 30 * time.Second, crowd: 1000,
		logins: 100, starts: 10, requests: 1_000_000, growth: 2 * time.Second,
	}
	quickSizes = sizes{
		rounds: 3, closed: 800 * time.Millisecond, open: 800 * time.Millisecond, watch: 5 * time.Second, crowd: 150,
		logins: 40, starts: 5, requests: 100_000, growth: 500 * time.Millisecond,
	}
)

const (
	active    = 10  // remembered users
	usual     = 100 // rules
	loginCost = 10  // of bcrypt, where first logins are counted
)

// connections are as many as keep every core busy.
var connections = 8 * runtime.NumCPU()

// job is a load on t by its remembered users.
func (t *target) job() job {
	return job{Address: t.address, Target: t.path(1), User: "u", Users: min(active, t.users), Password: password, Connections: connections, server: t.process}
}

// anonymous is a load on t by nobody.
func (t *target) anonymous() job {
	return job{Address: t.address, Target: anonymousPath, Connections: connections, server: t.process}
}

// warm makes the users of a job remembered.
func (b *bench) warm(j job) error {
	j.Requests, j.Connections, j.Duration, j.Rate = max(1, j.Users), runtime.NumCPU(), 0, 0
	_, err := b.tokens("logging in for the first time", j)
	return err
}

// tokens does a job that nothing but tokens may be the answer to.
func (b *bench) tokens(what string, j job) (outcome, error) {
	o, err := b.load(j)
	if err == nil && o.bad() > 0 {
		b.fail("%s: %d requests without a token: %v", what, o.bad(), o)
	}
	return o, err
}

// alternate does every job once in each round, so that what else this machine does hits all of them.
func (b *bench) alternate(jobs ...job) ([][]outcome, error) {
	all := make([][]outcome, len(jobs))
	for range b.rounds {
		for i, j := range jobs {
			before, err := j.server.cpu()
			if err != nil {
				return nil, err
			}
			o, err := b.tokens(j.Address+j.Target, j)
			if err != nil {
				return nil, err
			}
			after, err := j.server.cpu()
			if err != nil {
				return nil, err
			}
			o.cpu = after - before
			all[i] = append(all[i], o)
		}
	}
	return all, nil
}

func medianOf(outcomes []outcome, figure func(outcome) float64) float64 {
	var values []float64
	for _, o := range outcomes {
		values = append(values, figure(o))
	}
	return median(values)
}

// rates are tokens a second, as rows to be completed.
func (b *bench) rates(length time.Duration, jobs ...job) ([]row, error) {
	for i := range jobs {
		jobs[i].Duration = length
	}
	all, err := b.alternate(jobs...)
	var rows []row
	for _, outcomes := range all {
		rows = append(rows, row{Value: medianOf(outcomes, outcome.rate), Unit: "/s", CPU: medianOf(outcomes, outcome.cpuEach)})
	}
	return rows, err
}

func (o outcome) cpuEach() float64 {
	return float64(o.cpu.Microseconds()) / float64(max(1, o.Answers[200]))
}

func p50(o outcome) float64  { return milliseconds(o.P50) }
func p99(o outcome) float64  { return milliseconds(o.P99) }
func p999(o outcome) float64 { return milliseconds(o.P999) }

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func percentiles(outcomes []outcome) map[string]float64 {
	return map[string]float64{"p50": medianOf(outcomes, p50), "p99": medianOf(outcomes, p99), "p99.9": medianOf(outcomes, p999)}
}

// limit starts a server that signs tokens like one of t's.
func (b *bench) limit(t *target) (*process, job, error) {
	j := t.job()
	token, err := j.token()
	if err != nil {
		return nil, j, err
	}
	file := filepath.Join(t.dir, "sample")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		return nil, j, err
	}
	if j.Address, err = freeAddress(); err != nil {
		return nil, j, err
	}
	p, err := start(b.ctx, filepath.Join(t.dir, "limit.log"), b.self, "limit", j.Address, file)
	if err != nil {
		return nil, j, err
	}
	j.server = p
	return p, j, p.await(func() error { _, err := j.token(); return err })
}

// againstLimit is the cases a and b.
func (b *bench) againstLimit() error {
	for _, algorithm := range []string{"ES256", "RS256", "EdDSA"} {
		if err := b.algorithm(algorithm); err != nil {
			return fmt.Errorf("%s: %w", algorithm, err)
		}
	}
	return nil
}

func (b *bench) algorithm(algorithm string) error {
	t, err := b.start(setup{algorithm: algorithm, users: active, cost: b.cost, rules: usual, database: true})
	if err != nil {
		return err
	}
	defer b.stop(t)
	basic := t.job()
	if err := b.warm(basic); err != nil {
		return err
	}
	p, limit, err := b.limit(t)
	if err != nil {
		return err
	}
	defer b.stop(p)

	jobs, names := []job{limit, basic}, []string{"password"}
	if algorithm == "ES256" {
		accounts, token, err := b.accounts(t)
		if err != nil {
			return err
		}
		jobs = append(jobs, t.anonymous(), accounts, token)
		names = append(names, "anonymous", "database account", "access token")
	}
	rates, err := b.rates(b.closed, jobs...)
	if err != nil {
		return err
	}
	b.row(rates[0].named("a", "the limit, "+algorithm))
	for i, r := range rates[1:] {
		r = r.named("b", algorithm+", "+names[i]).beside("the limit", rates[0].Value)
		switch {
		case i > 0:
		case algorithm == "ES256":
			r = r.ratioAtLeast(0.8)
		case algorithm == "RS256":
			r = r.ratioAtLeast(0.95)
		}
		b.row(r)
	}

	if algorithm == "ES256" && b.profile != "" {
		if err := b.cpuProfile(t, basic); err != nil {
			return err
		}
	}

	limit.Rate, basic.Rate = rates[1].Value/2, rates[1].Value/2
	limit.Duration, basic.Duration = b.open, b.open
	all, err := b.alternate(limit, basic)
	if err != nil {
		return err
	}
	b.row(row{Case: "a", What: "the limit, " + algorithm + ", half load, p99", Value: medianOf(all[0], p99), Unit: "ms", Detail: percentiles(all[0])})
	b.row(row{Case: "b", What: algorithm + ", password, half load, p99", Value: medianOf(all[1], p99), Unit: "ms", Detail: percentiles(all[1])}.
		beside("the limit", medianOf(all[0], p99)).ratioAtMost(3))
	return nil
}

// cpuProfile keeps what t does under a load.
func (b *bench) cpuProfile(t *target, j job) error {
	j.Duration = 12 * time.Second
	done := make(chan error, 1)
	go func() {
		_, err := b.tokens("profile", j)
		done <- err
	}()
	profile, err := get("http://" + t.ops + "/debug/pprof/profile?seconds=10")
	return errors.Join(err, <-done, os.WriteFile(b.profile, profile, 0o644))
}

// accounts makes accounts in t's database and an access token, and returns loads by them.
func (b *bench) accounts(t *target) (accounts, token job, err error) {
	accounts = t.job()
	accounts.User = "d"
	for n := range active {
		if _, err := t.command(password+"\n", "user", "add", numbered("d", n), "--backend", "database", "--password-stdin"); err != nil {
			return accounts, token, err
		}
	}
	token = accounts
	token.User, token.Users = numbered("d", 0), 0
	secret, err := t.command("", "token", "create", "--user", token.User, "--name", "bench", "-o", "json")
	if err != nil {
		return accounts, token, err
	}
	var made struct{ Token string }
	if err := json.Unmarshal(secret, &made); err != nil {
		return accounts, token, err
	}
	token.Password = made.Token
	return accounts, token, b.warm(accounts)
}

// besidePeer is the case c: another token server, which is running already.
func (b *bench) besidePeer() error {
	if b.peer == "" {
		b.row(row{Case: "c", What: "a peer", Note: "none was given (PEER=NAME=URL)"})
		return nil
	}
	name, address, _ := strings.Cut(b.peer, "=")
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" || u.Host == "" {
		return fmt.Errorf("peer %q: would be right: NAME=http://HOST:PORT/PATH", b.peer)
	}
	if u.Port() == "" {
		u.Host += ":80"
	}
	if u.RawQuery == "" {
		u.RawQuery = url.Values{"service": {service}, "scope": {"repository:public/app:pull"}}.Encode()
	}
	peer := job{Address: u.Host, Target: u.RequestURI(), Connections: connections}
	if err := b.compare(name, "anonymous", peer); err != nil || b.peerUser == "" {
		return err
	}
	secret, err := os.ReadFile(b.peerPasswordFile)
	if err != nil {
		return fmt.Errorf("the password of %s at the peer: %w", b.peerUser, err)
	}
	peer.User, peer.Password = b.peerUser, strings.TrimSpace(string(secret))
	return b.compare(name, "password", peer)
}

func (b *bench) compare(name, what string, peer job) error {
	token, err := peer.token()
	if err != nil {
		b.row(row{Case: "c", What: name + ", " + what, Note: err.Error()})
		return nil
	}
	s, err := readSample(token)
	if err != nil {
		return err
	}
	t, err := b.start(setup{algorithm: s.Algorithm, users: active, cost: b.cost, rules: usual, database: true})
	if err != nil {
		return err
	}
	defer b.stop(t)
	ours := t.job()
	if peer.User == "" {
		ours = t.anonymous()
	}
	if err := b.warm(ours); err != nil {
		return err
	}
	rates, err := b.rates(b.closed, ours, peer)
	if err != nil {
		return err
	}
	b.row(rates[0].named("c", s.Algorithm+", "+what).beside(name, rates[1].Value))
	return nil
}

// grown is the case h: what does not matter to a request must not cost it anything.
func (b *bench) grown() error {
	type variant struct {
		what                 string
		users, rules, scopes int
	}
	for _, group := range [][]variant{
		{{"10 users", 10, usual, 1}, {"1,000 users", 1000, usual, 1}, {"100,000 users", 100_000, usual, 1}},
		{{"10 rules", active, 10, 1}, {"1,000 rules", active, 1000, 1}, {"100,000 rules", active, 100_000, 1}},
		{{"1 scope", active, usual, 1}, {"10 scopes", active, usual, 10}, {"100 scopes", active, usual, 100}},
	} {
		var jobs []job
		for _, v := range group {
			t, err := b.start(setup{algorithm: "ES256", users: v.users, cost: bcrypt.MinCost, rules: v.rules})
			if err != nil {
				return fmt.Errorf("%s: %w", v.what, err)
			}
			defer b.stop(t)
			j := t.job()
			j.Target, j.Users = t.path(v.scopes), min(v.users, members)
			if err := b.warm(j); err != nil {
				return err
			}
			jobs = append(jobs, j)
		}
		rates, err := b.rates(b.growth, jobs...)
		if err != nil {
			return err
		}
		for i, v := range group {
			r := rates[i].named("h", v.what)
			if i > 0 {
				r = r.beside(group[0].what, rates[0].Value)
			}
			b.row(r)
		}
	}
	return nil
}
