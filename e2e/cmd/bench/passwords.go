package main

import (
	"fmt"
	"runtime"
	"time"
)

// firstLogins is the case d.
func (b *bench) firstLogins() error {
	cores := runtime.NumCPU()
	t, err := b.start(setup{
		algorithm: "ES256", users: b.rounds * b.logins, cost: loginCost, rules: usual,
		set: []string{fmt.Sprintf("passwords.parallel=%d", cores)},
	})
	if err != nil {
		return err
	}
	defer b.stop(t)
	j := t.job()
	j.Users, j.Requests, j.Connections = b.logins, b.logins, 4*cores
	var bare, ours []float64
	for round := range b.rounds {
		rate, err := b.bcryptRate(loginCost, cores, b.logins)
		if err != nil {
			return err
		}
		bare = append(bare, rate)
		j.First = round * b.logins
		o, err := b.tokens("first logins", j)
		if err != nil {
			return err
		}
		ours = append(ours, o.rate())
	}
	checks, err := t.metric("authserver_password_check_duration_seconds_count")
	if err != nil {
		return err
	}
	if int(checks) != b.rounds*b.logins {
		b.fail("%d users have logged in with %v checks of a password", b.rounds*b.logins, checks)
	}
	b.row(row{Case: "d", What: fmt.Sprintf("first logins, bcrypt cost %d", loginCost), Value: median(ours), Unit: "/s"}.
		beside(fmt.Sprintf("bcrypt alone, %d at once", cores), median(bare)).ratioAtLeast(0.9))
	return nil
}

// disturbed is the case e: remembered users, with others about.
func (b *bench) disturbed() error {
	logins := job{User: "u", First: active, Users: b.crowd, Password: password, Requests: b.crowd, Connections: 64}
	names := job{User: "nobody-", Users: 1_000_000, Password: "wrong", Guess: true, Connections: 64}
	one := job{User: numbered("u", 0), Password: "wrong", Guess: true, Connections: 64}
	elsewhere := one
	elsewhere.From = "127.0.0.2"
	rate, quiet := 0.0, 0.0
	for _, v := range []struct {
		what   string
		others *job
		length time.Duration
	}{
		{"quiet", nil, b.watch},
		{"while others log in for the first time", &logins, 2 * b.watch},
		{"while somebody guesses names and passwords", &names, b.watch},
		{"while somebody guesses one of their passwords", &one, b.watch},
		{"while somebody elsewhere does that", &elsewhere, b.watch},
	} {
		o, others, err := b.disturb(v.others, v.length, &rate)
		if err != nil {
			return fmt.Errorf("%s: %w", v.what, err)
		}
		r := row{Case: "e", What: "remembered users, p99, " + v.what, Value: p99(o), Unit: "ms", Detail: percentiles([]outcome{o}), Note: others}
		if v.others == nil {
			quiet = p99(o)
			r.Note = fmt.Sprintf("at %.0f/s, half of the most", rate)
		} else {
			r = r.beside("quiet", quiet).ratioAtMost(3)
		}
		b.row(r)
		b.row(row{Case: "e", What: "… without a token", Value: float64(o.bad()), Unit: "requests"}.atMost(0))
	}
	return nil
}

// disturb measures the remembered users of a new authserver while others do their job. The first time it finds out which
// rate is half of what they can have.
func (b *bench) disturb(others *job, length time.Duration, rate *float64) (o outcome, note string, err error) {
	t, err := b.start(setup{algorithm: "ES256", users: active + b.crowd, cost: loginCost, rules: usual})
	if err != nil {
		return o, "", err
	}
	defer b.stop(t)
	j := t.job()
	if err := b.warm(j); err != nil {
		return o, "", err
	}
	if *rate == 0 {
		rates, err := b.rates(b.closed, j)
		if err != nil {
			return o, "", err
		}
		*rate = rates[0].Value / 2
	}
	j.Rate, j.Duration, j.Connections = *rate, length, 64
	type result struct {
		outcome
		error
	}
	theirs := make(chan result, 1)
	if others != nil {
		disturbing := *others
		disturbing.Address, disturbing.Target, disturbing.Duration = t.address, j.Target, j.Duration+time.Second
		go func() {
			o, err := b.load(disturbing)
			theirs <- result{o, err}
		}()
		time.Sleep(500 * time.Millisecond)
	}
	if o, err = b.tokens("remembered users", j); err != nil || others == nil {
		return o, "", err
	}
	r := <-theirs
	return o, fmt.Sprintf("their answers in %.0f s: %v", r.Elapsed.Seconds(), r.outcome), r.error
}
