//go:build !linux

package bench

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// blocking is a load with one goroutine for each connection.
type blocking []net.Conn

func newLoad(to *net.TCPAddr, clients int) (load, error) {
	var l blocking
	for range clients {
		c, err := net.DialTCP("tcp", nil, to)
		if err != nil {
			return nil, errors.Join(err, l.Close())
		}
		l = append(l, c)
	}
	return l, nil
}

func (l blocking) Close() error {
	var errs []error
	for _, c := range l {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

func (l blocking) run(requests [][]byte) ([]time.Duration, time.Duration, error) {
	took := make([]time.Duration, len(requests))
	errs := make([]error, len(l))
	var next atomic.Int64
	var wg sync.WaitGroup
	for c, conn := range l {
		wg.Go(func() {
			got := make([]byte, 4<<10)
			for i := next.Add(1) - 1; i < int64(len(requests)) && errs[c] == nil; i = next.Add(1) - 1 {
				begin := time.Now()
				_, err := conn.Write(requests[i])
				for n, size := 0, 0; err == nil && size == 0; {
					var more int
					if more, err = conn.Read(got[n:]); err == nil {
						n += more
						size, err = answered(got[:n])
					}
				}
				took[i], errs[c] = time.Since(begin), err
			}
		})
	}
	wg.Wait()
	return took, 0, errors.Join(errs...)
}
