// Command pahov5 drives Eclipse Paho for Go, MQTT 5.
package main

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/session/state"
	"golang.org/x/net/websocket"

	"interop/lines"
)

const timeout = 30 * time.Second

func main() {
	var client *paho.Client
	lines.Serve(func(request lines.Request) (lines.Answer, error) {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		switch request.Op {
		case "connect":
			defer cancel()
			var present bool
			var err error
			client, present, err = connect(ctx, request)
			return lines.Answer{OK: map[string]any{"session_present": present}}, err
		case "subscribe":
			defer cancel()
			return subscribe(ctx, client, request)
		case "unsubscribe":
			defer cancel()
			_, err := client.Unsubscribe(ctx, &paho.Unsubscribe{Topics: []string{request.Filter}})
			return lines.Answer{}, err
		case "publish":
			defer cancel()
			return publish(ctx, client, request)
		case "disconnect":
			defer cancel()
			err := client.Disconnect(&paho.Disconnect{})
			<-client.Done()
			return lines.Answer{}, err
		}
		cancel()
		return lines.Answer{}, fmt.Errorf("unknown operation %q", request.Op)
	})
}

func connect(ctx context.Context, request lines.Request) (*paho.Client, bool, error) {
	conn, err := dial(request)
	if err != nil {
		return nil, false, err
	}
	client := paho.NewClient(paho.ClientConfig{
		ClientID:           request.ClientID,
		Conn:               conn,
		Session:            state.NewInMemory(),
		PacketTimeout:      timeout,
		OnPublishReceived:  []func(paho.PublishReceived) (bool, error){received},
		OnClientError:      func(error) { lines.Closed() },
		OnServerDisconnect: func(*paho.Disconnect) { lines.Closed() },
	})
	// No TopicAliasMaximum: the library hands over aliased messages without their topic.
	packet := &paho.Connect{
		ClientID:   request.ClientID,
		CleanStart: request.Clean,
		KeepAlive:  60,
		Properties: &paho.ConnectProperties{SessionExpiryInterval: &request.Expiry},
	}
	if will := request.Will; will != nil {
		packet.WillMessage = &paho.WillMessage{
			Topic: will.Topic, Payload: will.Payload, QoS: will.QoS, Retain: will.Retain,
		}
		packet.WillProperties = &paho.WillProperties{}
	}
	connack, err := client.Connect(ctx, packet)
	if err != nil {
		return nil, false, err
	}
	return client, connack.SessionPresent, nil
}

func dial(request lines.Request) (net.Conn, error) {
	address := net.JoinHostPort(request.Host, strconv.Itoa(request.Port))
	if request.Transport != "ws" {
		return net.DialTimeout("tcp", address, timeout)
	}
	config, err := websocket.NewConfig("ws://"+address+request.Path, "http://"+address)
	if err != nil {
		return nil, err
	}
	config.Protocol = []string{"mqtt"}
	conn, err := websocket.DialConfig(config)
	if err != nil {
		return nil, err
	}
	conn.PayloadType = websocket.BinaryFrame
	return packets.NewThreadSafeConn(conn), nil
}

func subscribe(ctx context.Context, client *paho.Client, request lines.Request) (lines.Answer, error) {
	packet := &paho.Subscribe{}
	for _, filter := range request.Filters {
		packet.Subscriptions = append(packet.Subscriptions, paho.SubscribeOptions{
			Topic:             filter,
			QoS:               request.QoS,
			NoLocal:           request.Options.NoLocal,
			RetainAsPublished: request.Options.RetainAsPublished,
			RetainHandling:    request.Options.RetainHandling,
		})
	}
	if id := request.Options.SubscriptionID; id != 0 {
		packet.Properties = &paho.SubscribeProperties{SubscriptionIdentifier: &id}
	}
	suback, err := client.Subscribe(ctx, packet)
	if err != nil {
		return lines.Answer{}, err
	}
	var granted []int
	for _, reason := range suback.Reasons {
		granted = append(granted, int(reason))
	}
	return lines.Answer{OK: map[string]any{"granted": granted}}, nil
}

func publish(ctx context.Context, client *paho.Client, request lines.Request) (lines.Answer, error) {
	given := request.Properties
	properties := &paho.PublishProperties{
		ResponseTopic:   given.ResponseTopic,
		CorrelationData: given.Correlation,
		MessageExpiry:   given.Expiry,
		ContentType:     given.ContentType,
	}
	for _, pair := range given.User {
		properties.User.Add(pair[0], pair[1])
	}
	if given.Alias != 0 {
		properties.TopicAlias = &given.Alias
	}
	_, err := client.Publish(ctx, &paho.Publish{
		Topic: request.Topic, QoS: request.QoS, Retain: request.Retain, Payload: request.Payload, Properties: properties,
	})
	return lines.Answer{}, err
}

func received(publish paho.PublishReceived) (bool, error) {
	packet := publish.Packet
	message := lines.Message{
		Event: "message", Topic: packet.Topic, Payload: packet.Payload, QoS: packet.QoS, Retain: packet.Retain,
	}
	if properties := packet.Properties; properties != nil {
		message.Properties = lines.Properties{
			ResponseTopic: properties.ResponseTopic,
			Correlation:   properties.CorrelationData,
			Expiry:        properties.MessageExpiry,
			ContentType:   properties.ContentType,
		}
		for _, pair := range properties.User {
			message.Properties.User = append(message.Properties.User, [2]string{pair.Key, pair.Value})
		}
		if id := properties.SubscriptionIdentifier; id != nil {
			message.Properties.SubscriptionIDs = []int{*id}
		}
	}
	lines.Emit(message)
	return true, nil
}
