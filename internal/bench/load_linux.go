package bench

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// polled is a load on one thread of its own that waits for all connections at once (epoll(7)): nothing
// is scheduled for a request, and what the thread used is what posting cost.
type polled struct {
	poll  int
	conns []polledConn
}

type polledConn struct {
	fd    int
	begin time.Time
	got   []byte
}

func newLoad(to *net.TCPAddr, clients int) (_ load, err error) {
	l := &polled{poll: -1}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	if l.poll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	at := &unix.SockaddrInet4{Port: to.Port, Addr: [4]byte(to.IP.To4())}
	for i := range clients {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, os.NewSyscallError("socket", err)
		}
		l.conns = append(l.conns, polledConn{fd: fd, got: make([]byte, 0, 4<<10)})
		if err := errors.Join(unix.Connect(fd, at), unix.SetNonblock(fd, true), unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)); err != nil {
			return nil, os.NewSyscallError("connect", err)
		}
		if err := unix.EpollCtl(l.poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}); err != nil {
			return nil, os.NewSyscallError("epoll_ctl", err)
		}
	}
	return l, nil
}

func (l *polled) Close() error {
	var errs []error
	for _, c := range l.conns {
		errs = append(errs, unix.Close(c.fd))
	}
	if l.poll >= 0 {
		errs = append(errs, unix.Close(l.poll))
	}
	return errors.Join(errs...)
}

func (l *polled) run(requests [][]byte) (took []time.Duration, cpu time.Duration, err error) {
	runtime.LockOSThread() // what the thread used is looked at
	defer runtime.UnlockOSThread()
	before, err := threadTime()
	if err != nil {
		return nil, 0, err
	}
	took = make([]time.Duration, 0, len(requests))
	next := 0
	post := func(c *polledConn) error {
		if next == len(requests) {
			return nil
		}
		b := requests[next]
		next++
		c.begin = time.Now()
		n, err := unix.Write(c.fd, b) // far smaller than what a socket takes at once
		if err != nil || n != len(b) {
			return fmt.Errorf("%d of %d bytes were sent: %w", n, len(b), err)
		}
		return nil
	}
	for i := range l.conns {
		if err := post(&l.conns[i]); err != nil {
			return nil, 0, err
		}
	}
	events := make([]unix.EpollEvent, len(l.conns))
	for len(took) < len(requests) {
		n, err := unix.EpollWait(l.poll, events, int((30 * time.Second).Milliseconds()))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, 0, os.NewSyscallError("epoll_wait", err)
		case n == 0:
			return nil, 0, errors.New("no answer within 30 s")
		}
		for _, e := range events[:n] {
			c := &l.conns[e.Fd]
			size, err := unix.Read(c.fd, c.got[len(c.got):cap(c.got)])
			if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil || size == 0 {
				return nil, 0, fmt.Errorf("the connection broke: %w", err)
			}
			c.got = c.got[:len(c.got)+size]
			switch size, err := answered(c.got); {
			case err != nil:
				return nil, 0, err
			case size > 0:
				took = append(took, time.Since(c.begin))
				c.got = c.got[:0]
				if err := post(c); err != nil {
					return nil, 0, err
				}
			}
		}
	}
	after, err := threadTime()
	return took, after - before, err
}

// threadTime is what this thread has used so far.
func threadTime() (time.Duration, error) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		return 0, os.NewSyscallError("getrusage", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}
