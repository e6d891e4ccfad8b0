// SPDX-License-Identifier: MIT

// The peer in Go: wireguard-go's tun package, as its device uses it.
//
//	peer receive                 for each number on its standard input receives that many packets
//	peer send PACKET             sends that many; PACKET is in hexadecimal
//	peer echo                    answers every packet
//	peer forward NETNS NETNS     between "tun0" in two network namespaces, given as descriptors
//
// receive and send print the nanoseconds that it took.
package main

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"
)

const (
	offset = 16    // room for a virtio header in front of each packet
	room   = 65535 // what wireguard-go's buffers have
)

type end struct {
	device tun.Device
	bufs   [][]byte
	sizes  []int
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func open() *end {
	device, err := tun.CreateTUN("tun0", 1500)
	must(err)
	e := &end{device: device}
	for i := 0; i < device.BatchSize(); i++ {
		e.bufs = append(e.bufs, make([]byte, offset+room))
		e.sizes = append(e.sizes, 0)
	}
	return e
}

func (e *end) receive(left int) int {
	seen := 0
	for left > 0 {
		n, err := e.device.Read(e.bufs, e.sizes, offset)
		must(err)
		for i := 0; i < n; i++ {
			packet := e.bufs[i][offset : offset+e.sizes[i]]
			seen += len(packet)
		}
		left -= n
	}
	return seen
}

// The package merges packets in their buffers, so that each batch has to be filled anew.
func (e *end) send(packet []byte, left int) {
	batch := make([][]byte, len(e.bufs))
	for left > 0 {
		n := min(left, len(batch))
		for i := 0; i < n; i++ {
			batch[i] = e.bufs[i][:offset+len(packet)]
			copy(batch[i][offset:], packet)
		}
		_, err := e.device.Write(batch[:n], offset)
		must(err)
		left -= n
	}
}

func pass(from, to *end, change func([]byte)) {
	batch := make([][]byte, 0, len(from.bufs))
	for {
		n, err := from.device.Read(from.bufs, from.sizes, offset)
		must(err)
		batch = batch[:0]
		for i := 0; i < n; i++ {
			packet := from.bufs[i][:offset+from.sizes[i]]
			if change != nil {
				change(packet[offset:])
			}
			batch = append(batch, packet)
		}
		_, _ = to.device.Write(batch, offset)
	}
}

func swap(packet []byte) {
	var kept [12]byte
	copy(kept[:], packet[12:24])
	copy(packet[12:], kept[4:8])
	copy(packet[16:], kept[0:4])
	copy(packet[20:], kept[10:12])
	copy(packet[22:], kept[8:10])
}

func main() {
	work := os.Args[1]
	if work == "forward" {
		var ends [2]*end
		runtime.LockOSThread()
		for i := range ends {
			namespace, err := strconv.Atoi(os.Args[2+i])
			must(err)
			must(unix.Setns(namespace, unix.CLONE_NEWNET))
			ends[i] = open()
		}
		fmt.Println("ready")
		go pass(ends[0], ends[1], nil)
		go pass(ends[1], ends[0], nil)
		select {}
	}
	e := open()
	fmt.Println("ready")
	if work == "echo" {
		pass(e, e, swap)
	}
	var packet []byte
	if work == "send" {
		var err error
		packet, err = hex.DecodeString(os.Args[2])
		must(err)
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		number, err := strconv.Atoi(lines.Text())
		must(err)
		began := time.Now()
		if work == "send" {
			e.send(packet, number)
		} else {
			e.receive(number)
		}
		fmt.Println(time.Since(began).Nanoseconds())
	}
}
