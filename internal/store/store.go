// Package store remembers: accounts, groups, access tokens and refresh tokens, in an embedded SQLite file or in
// PostgreSQL (or what speaks its protocol). It is the only room that knows SQL, and decides nothing.
//
// One text serves both engines: the tables have no types but TEXT, BIGINT and BOOLEAN, and nothing is used that only one
// of them has. What a method has returned without an error survives the death of the process.
package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"authserver/internal/durable"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Config says which database.
type Config struct {
	URL            string        // sqlite:FILE or postgres://…
	Dir            string        // relative files start here
	PasswordFile   string        // of PostgreSQL; "" = the URL has it, or none is needed
	MaxConnections int           // to PostgreSQL
	Timeout        time.Duration // of one statement
	// Observe is told how long each operation, "read" or "write", took; nil means that nobody listens.
	Observe func(operation string, took time.Duration)
}

// Store is a database. It is safe for concurrent use, by several processes too.
type Store struct {
	db     *sql.DB
	sqlite bool
	file   string // of SQLite
	limit  time.Duration

	observe func(operation string, took time.Duration)
	recent  *recent
}

// Errors of Migrate.
var (
	// ErrNewer says that the database was made by a newer program, whose tables this one may not understand.
	ErrNewer = errors.New("the database is newer than this program")
	// ErrUnreachable says that the database does not answer; it may later.
	ErrUnreachable = errors.New("the database does not answer")
)

// Open is New and Migrate.
func Open(ctx context.Context, c Config) (*Store, error) {
	s, err := New(c)
	if err != nil {
		return nil, err
	}
	if err := s.Migrate(ctx); err != nil {
		_ = s.db.Close()
		return nil, err
	}
	return s, nil
}

// New returns a database that is reached when it is needed; a file is made if it is not there. Until Migrate has been
// through once, everything but Migrate may fail.
func New(c Config) (*Store, error) {
	s, err := connect(c)
	if err != nil {
		return nil, err
	}
	if s.observe = c.Observe; s.observe == nil {
		s.observe = func(string, time.Duration) {}
	}
	look := lookEvery
	if s.sqlite {
		look = lookInFile
	}
	s.recent = newRecent(look)
	return s, nil
}

func connect(c Config) (*Store, error) {
	switch scheme, rest, _ := strings.Cut(c.URL, ":"); scheme {
	case "sqlite":
		return openSQLite(c, rest)
	case "postgres", "postgresql":
		return openPostgres(c)
	default:
		return nil, errors.New("the address is that of no database; would be right: sqlite:authserver.db or postgres://user@host/name") // and may hold a password
	}
}

// fileConnections is how many connections to a file a process has at most: more than there are cores, because those who
// write wait for one another.
const fileConnections = 16

func openSQLite(c Config, name string) (*Store, error) {
	if !filepath.IsAbs(name) {
		name = filepath.Join(c.Dir, name)
	}
	name, err := filepath.Abs(name) // the first part of a relative path would be the host of the file: URL
	if err != nil {
		return nil, err
	}
	if err := durable.Create(name, 0o600); err != nil {
		return nil, err
	}
	options := url.Values{"_pragma": {
		"busy_timeout(5000)", "journal_mode(WAL)", "foreign_keys(1)",
		"synchronous(FULL)", // survives the machine's death, not only the process's
	}, "_txlock": {"immediate"}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: name, RawQuery: options.Encode()}).String())
	if err != nil {
		return nil, err
	}
	// Kept open, because opening is the dearest part of a question; bounded, because each takes files and memory.
	db.SetMaxOpenConns(fileConnections)
	db.SetMaxIdleConns(fileConnections)
	return &Store{db: db, sqlite: true, file: name, limit: c.Timeout}, nil
}

func openPostgres(c Config) (*Store, error) {
	config, err := pgx.ParseConfig(c.URL)
	if err != nil {
		return nil, errors.New("the address of PostgreSQL cannot be read; would be right: postgres://user@host:5432/name?sslmode=verify-full") // the error may hold the password
	}
	if c.PasswordFile != "" {
		text, err := os.ReadFile(c.PasswordFile)
		if err != nil {
			return nil, err
		}
		config.Password = strings.TrimRight(string(text), "\r\n")
	}
	config.RuntimeParams["application_name"] = "authserver"
	config.RuntimeParams["statement_timeout"] = fmt.Sprint(c.Timeout.Milliseconds())
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = c.Timeout
	}
	db := stdlib.OpenDB(*config)
	db.SetMaxOpenConns(c.MaxConnections)
	db.SetMaxIdleConns(c.MaxConnections)
	db.SetConnMaxLifetime(30 * time.Minute) // so that a changed address of a failed-over server is found
	return &Store{db: db, limit: c.Timeout}, nil
}

// Migrate brings the tables up to date, forward only; one process at a time does. Errors are ErrNewer, ErrUnreachable, or
// that it cannot be done.
func (s *Store) Migrate(ctx context.Context) error {
	if s.sqlite {
		// Before the first connection: it sets the file's journal mode, and two at once would be in each other's way.
		unlock, err := durable.Lock(filepath.Dir(s.file))
		if err != nil {
			return err
		}
		defer unlock()
	}
	switch err := s.Ping(ctx); {
	case err != nil && s.sqlite: // a damaged file, which gets no better
		return fmt.Errorf("the database cannot be opened: %w", err)
	case err != nil:
		return fmt.Errorf("%w: %s", ErrUnreachable, strings.Join(strings.Fields(err.Error()), " ")) // on one line
	}
	provider, err := s.migrations(true)
	if err != nil {
		return err
	}
	if err := newer(ctx, provider); err != nil {
		return err
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("the database cannot be brought up to date: %w", err)
	}
	return nil
}

// Check tells whether Migrate would go through, and changes nothing.
func (s *Store) Check(ctx context.Context) error {
	if err := s.Ping(ctx); err != nil {
		return fmt.Errorf("%w: %s", ErrUnreachable, strings.Join(strings.Fields(err.Error()), " "))
	}
	if made, err := s.isMade(ctx); err != nil || !made {
		return err
	}
	provider, err := s.migrations(false)
	if err != nil {
		return err
	}
	return newer(ctx, provider)
}

// isMade tells whether there are tables: to ask for their version would make the first of them.
func (s *Store) isMade(ctx context.Context) (bool, error) {
	question := "SELECT to_regclass('" + goose.DefaultTablename + "') IS NOT NULL"
	if s.sqlite {
		question = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '" + goose.DefaultTablename + "')"
	}
	ctx, cancel := context.WithTimeout(ctx, s.limit)
	defer cancel()
	var made bool
	if err := s.db.QueryRowContext(ctx, question).Scan(&made); err != nil {
		return false, fmt.Errorf("the database cannot be opened: %w", err)
	}
	return made, nil
}

// migrations is what brings the tables up to date; locked, for one process at a time.
func (s *Store) migrations(locked bool) (*goose.Provider, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	dialect := goose.DialectPostgres
	options := []goose.ProviderOption{goose.WithDisableGlobalRegistry(true)}
	switch {
	case s.sqlite:
		dialect = goose.DialectSQLite3
	case locked:
		// Replicas that start together look once a second, for as long as a large change may take.
		locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 300))
		if err != nil {
			return nil, err
		}
		options = append(options, goose.WithSessionLocker(locker))
	}
	return goose.NewProvider(dialect, s.db, files, options...)
}

// newer is ErrNewer for a database that a newer program has made.
func newer(ctx context.Context, provider *goose.Provider) error {
	have, known, err := provider.GetVersions(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("the database cannot be opened: %w", err)
	case have > known:
		return fmt.Errorf("%w: it is at version %d, known is %d; run the newer program, or restore a backup", ErrNewer, have, known)
	}
	return nil
}

// Close ends all connections.
func (s *Store) Close() error { return s.db.Close() }

// Ping tells whether the database answers.
func (s *Store) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.limit)
	defer cancel()
	return s.db.PingContext(ctx)
}

// DB is for statistics of the connections.
func (s *Store) DB() *sql.DB { return s.db }

// Backup writes a copy of a SQLite database to a file that is not there yet, while it is in use.
func (s *Store) Backup(ctx context.Context, file string) error {
	if !s.sqlite {
		return errors.New("the database is PostgreSQL; use pg_dump")
	}
	if _, err := os.Lstat(file); err == nil {
		return fmt.Errorf("%s is there already", file)
	}
	if err := durable.Create(file, 0o600); err != nil { // the copy is as secret as the original
		return err
	}
	if _, err := s.db.ExecContext(ctx, "VACUUM INTO "+quoted(file)); err != nil {
		_ = os.Remove(file)
		return err
	}
	return nil
}

// quoted is a text literal; VACUUM takes no parameters.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// text is a query with $1, $2, … as the engine has them.
func (s *Store) text(query string) string {
	if s.sqlite {
		return strings.ReplaceAll(query, "$", "?")
	}
	return query
}

// runner is a database or a transaction.
type runner interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// mostTries bounds how often a transaction is begun again that the database gave up in favour of another.
const mostTries = 5

// begin bounds the time of an operation, read or write; what it returns ends it, and tells how long it took.
func (s *Store) begin(ctx context.Context, operation string) (context.Context, func()) {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, s.limit)
	return ctx, func() {
		cancel()
		s.observe(operation, time.Since(start))
	}
}

// tx runs do in a transaction. It may run more than once.
func (s *Store) tx(ctx context.Context, do func(runner) error) error {
	ctx, cancel := s.begin(ctx, "write")
	defer cancel()
	for try := 1; ; try++ {
		err := s.once(ctx, do)
		if err == nil || !again(err) || try == mostTries {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Duration(try) * 10 * time.Millisecond):
		}
	}
}

func (s *Store) once(ctx context.Context, do func(runner) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := do(tx); err != nil {
		_ = tx.Rollback()
		return err
	}
	return tx.Commit()
}

// again tells whether the same transaction may go through when it is run again.
func again(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code == "40001" || pg.Code == "40P01" // serialization_failure, deadlock_detected
	}
	var lite *sqlite.Error
	return errors.As(err, &lite) && lite.Code()&0xff == sqlite3.SQLITE_BUSY
}

// conflict tells whether a row could not be added because one like it is there.
func conflict(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code == "23505" // unique_violation
	}
	var lite *sqlite.Error
	return errors.As(err, &lite) && (lite.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY || lite.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE)
}

// exec runs one statement by itself and returns how many rows it changed.
func (s *Store) exec(ctx context.Context, on runner, query string, args ...any) (int64, error) {
	result, err := on.ExecContext(ctx, s.text(query), args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// collect runs a query and reads its rows.
func collect[T any](ctx context.Context, s *Store, scan func(row interface{ Scan(...any) error }) (T, error), query string, args ...any) ([]T, error) {
	rows, err := s.db.QueryContext(ctx, s.text(query), args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var list []T
	for rows.Next() {
		row, err := scan(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, row)
	}
	return list, rows.Err()
}

// micros is a time as it is kept; zero is never.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMicro(n).UTC()
}
