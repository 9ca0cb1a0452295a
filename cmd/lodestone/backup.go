package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lodestonehq/lodestone/internal/access"
	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
)

func (c *cli) backupCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "backup FILE|DIR",
		Short: "Copy the store while the worker goes on",
		Long: `Backup writes the whole store, as it is at one moment, into FILE, or under a name with the time into DIR,
which must exist. The worker goes on meanwhile. The copy is checked before it gets its name, and never takes the place of
a file that is there. It holds leads, touchpoints, the journal, the suppression list, the rule files, and, as hashes, the
keys of forms (lodestone keys), the users of the console and the tokens (lodestone user, token): whoever reads it learns
all of that, so keep it as you keep the data directory. Not in it are the configuration with its secrets, and
submissions that are not applied yet, which are in the streams. Keep those, too (retention.submissions says for
how long they stay): a restored backup is brought up to date from them.`,
		Example: "  lodestone backup /var/backups/lodestone/\n  lodestone backup before-the-upgrade.db",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			file, err := filepath.Abs(a[0])
			if err != nil {
				return err
			}
			if info, err := os.Stat(file); err == nil && info.IsDir() {
				file = filepath.Join(file, "lodestone-"+time.Now().UTC().Format("20060102T150405Z")+".db")
			} else if strings.HasSuffix(a[0], string(filepath.Separator)) {
				return usagef("there is no directory %s; make it first, or give the name of a file", a[0])
			}
			conn, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			beside, err := c.besideStore()
			if err != nil {
				return err
			}
			info, err := boltstore.WriteBackup(cmd.Context(), file, beside, func(w io.Writer) error {
				if conn.store != nil {
					_, err := conn.store.Backup(cmd.Context(), w)
					return err
				}
				return conn.Backup(cmd.Context(), w)
			})
			if err != nil {
				return err
			}
			if c.flags.json {
				return c.printJSON(info)
			}
			fmt.Fprintf(c.out, "%s: %s, checked and good; %s\n", info.File, megabytes(info.Bytes), count(info.Leads, "lead"))
			return nil
		},
	}
}

// besideStore reads the small files of the data directory that a backup holds with the store.
func (c *cli) besideStore() (map[string][]byte, error) {
	cfg, err := c.load()
	if err != nil {
		return nil, err
	}
	beside := map[string][]byte{}
	for _, name := range []string{broker.FormKeysName, access.FileName} {
		data, err := os.ReadFile(filepath.Join(cfg.Data, name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, err
		default:
			beside[name] = data
		}
	}
	return beside, nil
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

func (c *cli) restoreCmd() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Put a backup in the place of the store",
		Long: `Restore checks the backup whole and then puts it in the place of the store in the data directory. The
store that was there is kept aside; what it knows of the time since the backup, its suppression list and
its pauses are taken over where it can be read. The worker must be stopped.

The restored store counts as a copy until "lodestone claim". The worker that then starts applies from the
streams what came in since the backup. Touchpoints that may have been sent since are not sent again: those
that the replaced store or the published events (retention.events) show as done are done, and the others
are looked up at the provider. Where it cannot answer they wait for a human (queue --attention).`,
		Example: "  lodestone restore /var/backups/lodestone/lodestone-20261120T030000Z.db --yes\n  lodestone claim --yes",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			cfg, err := c.load()
			if err != nil {
				return err
			}
			if err := c.confirm(yes, fmt.Sprintf("Put %s in the place of the store in %s?", a[0], cfg.Data)); err != nil {
				return err
			}
			info, err := boltstore.Restore(cmd.Context(), cfg.Data, a[0], time.Now().UTC())
			if err != nil {
				return err
			}
			if keys := info.Beside[broker.FormKeysName]; keys != nil {
				forms, err := broker.FormKeys{Path: filepath.Join(cfg.Data, broker.FormKeysName)}.Restore(keys)
				if err != nil {
					return fmt.Errorf("the store is restored, the keys of forms are not: %w", err)
				}
				if len(forms) > 0 {
					fmt.Fprintf(c.err, "keys of forms that let clients in again as when the backup was made: %s; end what had been ended since with `lodestone keys rm`\n", strings.Join(forms, ", "))
				}
			}
			if users := info.Beside[access.FileName]; users != nil {
				who, err := access.OpenBook(cfg.Data).Restore(users, time.Now())
				if err != nil {
					return fmt.Errorf("the store is restored, users and tokens are not: %w", err)
				}
				if len(who) > 0 {
					fmt.Fprintf(c.err, "let in again as when the backup was made: %s; end what had been ended since with `lodestone user rm` and `lodestone token rm`\n", strings.Join(who, ", "))
				}
			}
			if c.flags.json {
				return c.printJSON(info)
			}
			fmt.Fprintf(c.out, "restored the backup of %s: %s\n", utc(info.At), count(info.Leads, "lead"))
			if info.Aside != "" {
				fmt.Fprintf(c.out, "the store that was there is kept as %s; from it were taken over %s and what became of %s\n",
					info.Aside, count(info.Suppressions, "suppression"), count(info.Outcomes, "touchpoint"))
			}
			if info.Erased > 0 {
				fmt.Fprintf(c.out, "%d who had asked to be forgotten since then were erased again\n", info.Erased)
			}
			fmt.Fprintln(c.out, "it counts as a copy until `lodestone claim`; make sure that no other worker goes on with this data")
			return nil
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}
