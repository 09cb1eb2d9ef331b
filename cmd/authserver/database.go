package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"authserver/internal/config"
	"authserver/internal/store"
)

// withDatabase opens the database for a command that needs it.
func (h *hand) withDatabase(ctx context.Context, use func(*config.Config, *store.Store) error) error {
	c, err := h.loadConfig()
	if err != nil {
		return err
	}
	db, err := openStore(ctx, c)
	switch {
	case err != nil:
		return err
	case db == nil:
		return c.Fault("database.url", errors.New("none; this needs a database"))
	}
	defer leave(ctx, db)
	return use(c, db)
}

// databaseFile is the file of an embedded database, "" when there is none.
func databaseFile(c *config.Config) string {
	file, ok := strings.CutPrefix(c.Database.URL, "sqlite:")
	switch {
	case !ok:
		return ""
	case filepath.IsAbs(file):
		return file
	}
	return filepath.Join(c.Issuer.DataDir, file)
}

// missingDatabase tells of an embedded database that was not made yet.
func missingDatabase(c *config.Config) bool {
	file := databaseFile(c)
	if file == "" {
		return false
	}
	_, err := os.Stat(file)
	return err != nil
}

// leave closes the database of a command, once servers know what it has changed.
func leave(ctx context.Context, db *store.Store) {
	db.Settle(ctx)
	_ = db.Close()
}

func (h *hand) databaseCommand() *cobra.Command {
	return group("database", "The database", &cobra.Command{
		Use: "backup FILE", Short: "Copy the database into a file, while it is in use", Args: cobra.ExactArgs(1),
		Long: `Copy the embedded database into a file that is not there yet. The server can go on running. To restore it, stop the
server and put the file in the place of the database (docs/accounts.md). PostgreSQL has pg_dump for this.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return h.withDatabase(cmd.Context(), func(_ *config.Config, db *store.Store) error { return db.Backup(cmd.Context(), args[0]) })
		},
	})
}
