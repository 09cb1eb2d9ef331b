package metrics

import (
	"context"
	"database/sql"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// What is asked for whenever the metrics are read.

func (m *Metrics) gaugeFunc(name, help string, read func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, read))
}

func bit(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// WatchDatabase adds database_up, which asks the database, and the statistics of the connections.
func (m *Metrics) WatchDatabase(db *sql.DB, ping func(context.Context) error) {
	m.registry.MustRegister(collectors.NewDBStatsCollector(db, namespace))
	m.gaugeFunc("database_up", "1 if the database answers.", func() float64 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		return bit(ping(ctx) == nil)
	})
}

// WatchReady adds ready: what /readyz says.
func (m *Metrics) WatchReady(ready func() bool) {
	m.gaugeFunc("ready", "1 if requests are welcome, as /readyz says.", func() float64 { return bit(ready()) })
}

// WatchCertificate adds the end of the public listener's certificate.
func (m *Metrics) WatchCertificate(end func() time.Time) {
	m.gaugeFunc("tls_certificate_expiry_timestamp_seconds", "When the certificate of the public listener ends.", func() float64 { return float64(end().Unix()) })
}

// WatchWaiting adds how many passwords wait to be hashed.
func (m *Metrics) WatchWaiting(waiting func() int) {
	m.gaugeFunc("password_checks_waiting", "Passwords that wait to be hashed.", func() float64 { return float64(waiting()) })
}

// Connections are those of the public listener.
type Connections struct {
	Open, Limit int
	// ClosedIdle made room for others; ClosedNew found no room, because all were at work.
	ClosedIdle, ClosedNew uint64
}

// WatchConnections adds what becomes of connections.
func (m *Metrics) WatchConnections(read func() Connections) {
	m.gaugeFunc("connections", "Connections to the public listener.", func() float64 { return float64(read().Open) })
	m.gaugeFunc("connections_limit", "How many there may be.", func() float64 { return float64(read().Limit) })
	for which, count := range map[string]func(Connections) uint64{
		"idle": func(c Connections) uint64 { return c.ClosedIdle }, "new": func(c Connections) uint64 { return c.ClosedNew },
	} {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: namespace, Name: "connections_turned_away_total",
			Help: "Connections closed because there were too many: one that was idle, or the new one.", ConstLabels: prometheus.Labels{"which": which}},
			func() float64 { return float64(count(read())) }))
	}
}

// WatchDisks adds the room on the disks of folders, by what they hold, which must come from a fixed list.
func (m *Metrics) WatchDisks(folders map[string]string) { m.registry.MustRegister(disks(folders)) }

// disks are the filesystems that folders are on. One that cannot be asked has no samples.
type disks map[string]string

var (
	diskAvail = prometheus.NewDesc(namespace+"_filesystem_avail_bytes", "Bytes that can still be written where the audit log or the data is.", []string{"of"}, nil)
	diskSize  = prometheus.NewDesc(namespace+"_filesystem_size_bytes", "Size of that filesystem.", []string{"of"}, nil)
)

// Describe implements prometheus.Collector.
func (disks) Describe(to chan<- *prometheus.Desc) { to <- diskAvail; to <- diskSize }

// Collect implements prometheus.Collector.
func (d disks) Collect(to chan<- prometheus.Metric) {
	for of, folder := range d {
		var s syscall.Statfs_t
		if syscall.Statfs(folder, &s) != nil {
			continue
		}
		block := float64(s.Bsize)
		to <- prometheus.MustNewConstMetric(diskAvail, prometheus.GaugeValue, float64(s.Bavail)*block, of)
		to <- prometheus.MustNewConstMetric(diskSize, prometheus.GaugeValue, float64(s.Blocks)*block, of)
	}
}
