// Package lines is the Go side of the JSON lines that harness/peer.py describes.
package lines

import (
	"bufio"
	"encoding/json"
	"os"
	"sync"
)

// Will is the last will of a connect request.
type Will struct {
	Topic   string `json:"topic"`
	Payload []byte `json:"payload"`
	QoS     byte   `json:"qos"`
	Retain  bool   `json:"retain"`
}

// Options are the MQTT 5 options of a subscribe request.
type Options struct {
	NoLocal           bool `json:"no_local"`
	RetainAsPublished bool `json:"retain_as_published"`
	RetainHandling    byte `json:"retain_handling"`
	SubscriptionID    int  `json:"subscription_id"`
}

// Properties are the MQTT 5 properties of a message, both ways.
type Properties struct {
	User            [][2]string `json:"user,omitempty"`
	ResponseTopic   string      `json:"response_topic,omitempty"`
	Correlation     []byte      `json:"correlation,omitempty"`
	Expiry          *uint32     `json:"expiry,omitempty"`
	ContentType     string      `json:"content_type,omitempty"`
	Alias           uint16      `json:"alias,omitempty"`
	SubscriptionIDs []int       `json:"subscription_ids,omitempty"`
}

// Request holds the fields of every operation.
type Request struct {
	ID         int        `json:"id"`
	Op         string     `json:"op"`
	Host       string     `json:"host"`
	Port       int        `json:"port"`
	Transport  string     `json:"transport"`
	Path       string     `json:"path"`
	ClientID   string     `json:"client_id"`
	Clean      bool       `json:"clean"`
	Expiry     uint32     `json:"expiry"`
	Will       *Will      `json:"will"`
	Filters    []string   `json:"filters"`
	Filter     string     `json:"filter"`
	Options    Options    `json:"options"`
	Topic      string     `json:"topic"`
	Payload    []byte     `json:"payload"`
	QoS        byte       `json:"qos"`
	Retain     bool       `json:"retain"`
	Properties Properties `json:"properties"`
}

// Message is an event: what the client received.
type Message struct {
	Event      string     `json:"event"`
	Topic      string     `json:"topic"`
	Payload    []byte     `json:"payload"`
	QoS        byte       `json:"qos"`
	Retain     bool       `json:"retain"`
	Properties Properties `json:"properties"`
}

// Answer is what an operation yields. Wait, when set, is called off the reading loop, so that acknowledgements of
// several publishes are awaited at once while their sending keeps its order.
type Answer struct {
	OK   map[string]any
	Wait func() error
}

const lineBytesMax = 64 << 20

var (
	out   = json.NewEncoder(os.Stdout)
	outMu sync.Mutex
)

// Emit writes one line.
func Emit(line any) {
	outMu.Lock()
	defer outMu.Unlock()
	if err := out.Encode(line); err != nil {
		os.Exit(1)
	}
}

// Closed tells that the connection is gone.
func Closed() {
	Emit(map[string]string{"event": "closed"})
}

// Serve answers each line on standard input until it ends.
func Serve(handle func(Request) (Answer, error)) {
	scanner := bufio.NewScanner(os.Stdin)
	scanner.Buffer(make([]byte, 64<<10), lineBytesMax)
	for scanner.Scan() {
		var request Request
		if err := json.Unmarshal(scanner.Bytes(), &request); err != nil {
			Emit(map[string]any{"id": request.ID, "error": err.Error()})
			continue
		}
		answer, err := handle(request)
		if err != nil || answer.Wait == nil {
			reply(request.ID, answer.OK, err)
			continue
		}
		go func() { reply(request.ID, answer.OK, answer.Wait()) }()
	}
}

func reply(id int, ok map[string]any, err error) {
	if err != nil {
		Emit(map[string]any{"id": id, "error": err.Error()})
		return
	}
	if ok == nil {
		ok = map[string]any{}
	}
	Emit(map[string]any{"id": id, "ok": ok})
}
