package blocks23

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/blocks23/api"
)

const (
	// pageSize is how many records a walk asks for at a time. A page of 100 referrals is some 60 KiB, a
	// sixteenth of what the transport reads.
	pageSize = 100
	// maxPages is how many pages one walk reads at most: 5,000 records. What is longer than that cannot
	// be walked often without using up the account's rate.
	maxPages = 50
)

// source makes the request for a page of a list.
type source struct {
	operation string
	request   func(page int) (*http.Request, error)
}

func (c *connector) referrals(size int) source {
	return source{opList, func(page int) (*http.Request, error) {
		return c.signed(api.NewListReferralsRequest(c.server, c.form, &api.ListReferralsParams{Page: &page, Records: &size}))
	}}
}

func (c *connector) subscribers() source {
	return source{opSubscriptions, func(page int) (*http.Request, error) {
		size := pageSize
		return c.signed(api.NewListSubscriptionsRequest(c.server, c.subscriptions, &api.ListSubscriptionsParams{Page: &page, Records: &size}))
	}}
}

// page reads one page of a list.
func (c *connector) page(ctx context.Context, from source, number int) (l listing, err error) {
	req, err := from.request(number)
	if err != nil {
		return l, err
	}
	_, err = c.t.Read(ctx, connectors.Call{
		Operation: from.operation, Request: req,
		Decode: func(a connectors.Answer) (err error) {
			l, err = list(a.Body)
			return err
		},
	})
	return l, err
}

// walked is how far a walk got.
type walked struct {
	records int    // different ones that were seen
	gap     string // why not seeing something proves nothing; empty: the whole list was seen
}

// errTurn is a walk that waited too long for another one.
var errTurn = errors.New("other look-ups took the time that there was")

// walk reads a list and shows each record to visit, until visit says that it is enough. Pages are
// read from both ends inwards, since the list may run either way and what is looked for is mostly new.
// A record may be visited twice. The error is one of the transport's, or errTurn.
func (c *connector) walk(ctx context.Context, from source, visit func(*element) (enough bool)) (walked, error) {
	w := walker{seen: map[string]bool{}, visit: visit}
	// Whoever walks has a place for all its pages: those with one, who wait for the walk under way, would
	// else keep it from its next page.
	ctx, release, err := c.t.Hold(ctx)
	if err != nil {
		return w.walked, errTurn
	}
	defer release()
	start := time.Now()
	first, err := c.page(ctx, from, 1)
	if err != nil || w.take(first) {
		return w.walked, err
	}
	w.length = first.records
	if first.records == noCount {
		w.doubt("the list does not say how long it is")
	}
	slowest, last := time.Since(start), lastPage(first)
	if last <= 1 && last != noCount {
		return w.end(), nil
	}
	begun := time.Now()
	select { // one long walk at a time, or all of them run out of time together
	case c.long <- struct{}{}:
		defer func() { <-c.long }()
	case <-ctx.Done():
		return w.walked, errTurn
	}
	waited := time.Since(begun)
	for n, number := range inwards(last, c.most) {
		start = time.Now()
		if deadline, limited := ctx.Deadline(); limited && deadline.Sub(start) < slowest+slowest/2 {
			if waited > slowest {
				return w.walked, errTurn
			}
			w.doubt(fmt.Sprintf("the time was up after %d pages; a longer timeout gives room for more", n+1))
			return w.end(), nil
		}
		page, err := c.page(ctx, from, number)
		if err != nil {
			return w.walked, err
		}
		slowest = max(slowest, time.Since(start))
		fresh := len(w.seen)
		if w.take(page) {
			return w.walked, nil
		}
		if page.records != first.records || page.pages != first.pages {
			w.doubt("the list changed its length while it was walked")
		}
		if last == noCount && len(w.seen) == fresh {
			break // its end, or the same page once more
		}
	}
	if last > c.most {
		w.doubt(fmt.Sprintf("the list has %d pages, and %d are the most that are walked", last, c.most))
	}
	return w.end(), nil
}

// lastPage is the number of the last page, noCount when the first page does not tell.
func lastPage(first listing) int {
	size := len(first.elements) + first.unreadable
	switch {
	case first.pages != noCount:
		return first.pages
	case first.records == noCount:
		return noCount
	case size == 0:
		return 1
	}
	return (first.records + size - 1) / size
}

// inwards gives the numbers of the pages to read after the first, as many as may be read: the last, the
// second, the last but one and so on. Where nobody knows the last it counts up.
func inwards(last, most int) []int {
	var order []int
	for low, high := 2, last; len(order) < most-1; {
		switch {
		case last == noCount:
			order = append(order, low)
			low++
			continue
		case low > high:
			return order
		case len(order)%2 == 0:
			order = append(order, high)
			high--
		default:
			order = append(order, low)
			low++
		}
	}
	return order
}

type walker struct {
	walked
	visit  func(*element) bool
	seen   map[string]bool
	length int // as the first page states it
	odd    int // records that cannot be read
}

// take visits the records of a page.
func (w *walker) take(page listing) (enough bool) {
	w.odd += page.unreadable
	for i := range page.elements {
		e := &page.elements[i]
		w.seen[e.id()] = true
		w.records = len(w.seen)
		if w.visit(e) {
			return true
		}
	}
	return false
}

// doubt notes the first reason why the walk proves nothing.
func (w *walker) doubt(why string) {
	if w.gap == "" {
		w.gap = why
	}
}

// end says what a walk to the end proves.
func (w *walker) end() walked {
	if w.odd > 0 {
		w.doubt("the list has records that cannot be read")
	}
	if w.records != w.length {
		w.doubt(fmt.Sprintf("the list states %d records, and %d were seen", w.length, w.records))
	}
	return w.walked
}
