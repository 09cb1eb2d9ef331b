// Package metrics names everything that is measured. One Metrics is made for the process and outlives reloads; every
// label takes its values from a fixed list or from the configuration, never from a client.
package metrics

import (
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"authserver/internal/scope"
)

const namespace = "authserver"

// Metrics are all collectors, on a registry of their own.
type Metrics struct {
	registry        *prometheus.Registry
	requests        *prometheus.CounterVec
	duration        *prometheus.HistogramVec
	access          *prometheus.CounterVec
	dropped         prometheus.Counter
	conditions      prometheus.Counter
	authentications *prometheus.CounterVec
	reviews         *prometheus.CounterVec
	reviewDuration  prometheus.Histogram
	database        *prometheus.HistogramVec
	checksInFlight  prometheus.Gauge
	checkDuration   prometheus.Histogram
	recalled        *prometheus.CounterVec
	heldBack        *prometheus.CounterVec
	reloadSuccess   prometheus.Gauge
	reloadTime      prometheus.Gauge
	keyExpiry       *prometheus.GaugeVec
	rootExpiry      *prometheus.GaugeVec
	audited         *prometheus.CounterVec
	turnedAway      prometheus.Counter
	spans           *prometheus.CounterVec
}

// New returns metrics with the build's version in build_info.
func New(version, revision, goVersion string) *Metrics {
	buckets := []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help})
	}
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: counter("token_requests_total", "Token requests answered.", "grant", "service", "outcome"),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Name: "token_request_duration_seconds",
			Help: "Time from the request's header to the answer.", Buckets: buckets}, []string{"grant", "outcome"}),
		access:  counter("access_total", "Decisions on one action of one resource.", "type", "action", "decision"),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: "scopes_dropped_total", Help: "Scopes that could not be read and granted nothing."}),
		conditions: prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: "policy_condition_failures_total",
			Help: "Conditions of rules that could not be evaluated; none of them granted."}),
		authentications: counter("authentications_total", "Answers of identity backends.", "backend", "outcome"),
		reviews:         counter("webhook_requests_total", "Questions to acl.webhook.", "outcome"),
		reviewDuration: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: namespace, Name: "webhook_request_duration_seconds",
			Help: "Time to an answer of acl.webhook, or to giving up.", Buckets: buckets}),
		database: prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Name: "database_request_duration_seconds",
			Help: "Time of one operation on the database.", Buckets: buckets}, []string{"operation"}),
		checksInFlight: gauge("password_checks_in_flight", "Passwords being hashed now."),
		checkDuration: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: namespace, Name: "password_check_duration_seconds",
			Help: "Time to hash one password.", Buckets: buckets}),
		recalled:      counter("credential_cache_total", "Passwords looked up among those that were right or wrong lately.", "result"),
		heldBack:      counter("throttled_total", "Passwords that were not checked.", "reason"),
		reloadSuccess: gauge("config_reload_success", "1 if the newest configuration is in use, 0 if it was refused."),
		reloadTime:    gauge("config_reload_success_timestamp_seconds", "When the configuration in use was loaded."),
		keyExpiry: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: "signing_key_expiry_timestamp_seconds",
			Help: "When the certificate of a signing key ends."}, []string{"kid"}),
		rootExpiry: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: "root_certificate_expiry_timestamp_seconds",
			Help: "When the root certificate ends that registries trust."}, []string{"kid"}),
		audited: counter("audit_lines_total", "Lines for the audit log; one that failed gave no token.", "outcome"),
		turnedAway: prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: "requests_turned_away_total",
			Help: "Requests answered 503 because too many were under way."}),
		spans: counter("trace_spans_total", "Spans of traced requests.", "outcome"),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: "build_info", Help: "1, labelled with the build.",
		ConstLabels: prometheus.Labels{"version": version, "revision": revision, "goversion": goVersion}})
	build.Set(1)
	m.registry.MustRegister(m.requests, m.duration, m.access, m.dropped, m.conditions, m.authentications, m.reviews, m.reviewDuration, m.database, m.checksInFlight, m.checkDuration, m.recalled, m.heldBack,
		m.reloadSuccess, m.reloadTime, m.keyExpiry, m.rootExpiry, m.audited, m.turnedAway, m.spans, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.gaugeFunc("time_seconds", "The clock of the process.", func() float64 { return float64(time.Now().UnixNano()) / 1e9 })
	// There from the start: the rise from nothing to one is no rise to a rate.
	for vec, values := range map[*prometheus.CounterVec][]string{
		m.audited: {"written", "failed"}, m.spans: {"exported", "dropped"}, m.heldBack: {"account", "network", "queue"}, m.recalled: {"hit", "refused", "shared", "miss"},
	} {
		for _, value := range values {
			vec.WithLabelValues(value)
		}
	}
	return m
}

// Handler serves the metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// TokenRequest counts an answered request. grant, service and outcome must come from fixed lists; a service that is not
// configured is "".
func (m *Metrics) TokenRequest(grant, service, outcome string, took time.Duration) {
	if service == "" {
		service = "unknown"
	}
	m.requests.WithLabelValues(grant, service, outcome).Inc()
	m.duration.WithLabelValues(grant, outcome).Observe(took.Seconds())
}

// Access counts the decisions of a request. Types and actions beyond a registry's own are counted together: clients
// choose them.
func (m *Metrics) Access(verdicts []scope.Verdict) {
	bounded := func(value string, known ...string) string {
		if slices.Contains(known, value) {
			return value
		}
		return "other"
	}
	for _, v := range verdicts {
		decision := "denied"
		if v.Granted {
			decision = "granted"
		}
		m.conditions.Add(float64(len(v.Failed)))
		m.access.WithLabelValues(bounded(v.Type, scope.Repository, "registry"), bounded(v.Action, "pull", "push", "delete", scope.All), decision).Inc()
	}
}

// ScopesDropped counts scopes that could not be read.
func (m *Metrics) ScopesDropped(n int) { m.dropped.Add(float64(n)) }

// Authentication counts one backend's answer.
func (m *Metrics) Authentication(backend, outcome string) {
	m.authentications.WithLabelValues(backend, outcome).Inc()
}

// Review counts a question to the webhook. outcome must come from a fixed list.
func (m *Metrics) Review(outcome string, took time.Duration) {
	m.reviews.WithLabelValues(outcome).Inc()
	if outcome == "answered" || outcome == "failed" { // nobody was asked otherwise
		m.reviewDuration.Observe(took.Seconds())
	}
}

// Database is told of one operation, "read" or "write".
func (m *Metrics) Database(operation string, took time.Duration) {
	m.database.WithLabelValues(operation).Observe(took.Seconds())
}

// PasswordCheck is called when a hash starts; what it returns when it ends.
func (m *Metrics) PasswordCheck(int) (done func()) {
	start := time.Now()
	m.checksInFlight.Inc()
	return func() {
		m.checksInFlight.Dec()
		m.checkDuration.Observe(time.Since(start).Seconds())
	}
}

// Recalled counts what is remembered of a password that was given. result must come from a fixed list.
func (m *Metrics) Recalled(result string) { m.recalled.WithLabelValues(result).Inc() }

// HeldBack counts a password that was not checked. reason must come from a fixed list.
func (m *Metrics) HeldBack(reason string) { m.heldBack.WithLabelValues(reason).Inc() }

// Reloaded notes whether a configuration came into use.
func (m *Metrics) Reloaded(ok bool) {
	if !ok {
		m.reloadSuccess.Set(0)
		return
	}
	m.reloadSuccess.Set(1)
	m.reloadTime.SetToCurrentTime()
}

// Audited counts a line for the audit log.
func (m *Metrics) Audited(err error) {
	if err != nil {
		m.audited.WithLabelValues("failed").Inc()
		return
	}
	m.audited.WithLabelValues("written").Inc()
}

// Spans counts what became of spans. outcome must come from a fixed list.
func (m *Metrics) Spans(outcome string, n int) { m.spans.WithLabelValues(outcome).Add(float64(n)) }

// RequestTurnedAway counts a request that found too many others under way.
func (m *Metrics) RequestTurnedAway() { m.turnedAway.Inc() }

// SigningKeys replaces the expiry of every signing key, and of the root, by kid.
func (m *Metrics) SigningKeys(expiry map[string]time.Time) { replace(m.keyExpiry, expiry) }

// Roots replaces the expiry of the root.
func (m *Metrics) Roots(expiry map[string]time.Time) { replace(m.rootExpiry, expiry) }

func replace(gauge *prometheus.GaugeVec, times map[string]time.Time) {
	gauge.Reset()
	for label, at := range times {
		gauge.WithLabelValues(label).Set(float64(at.Unix()))
	}
}
