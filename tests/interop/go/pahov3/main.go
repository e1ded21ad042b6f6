// Command pahov3 drives Eclipse Paho for Go, MQTT 3.1.1.
package main

import (
	"errors"
	"fmt"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"interop/lines"
)

const timeout = 30 * time.Second

func main() {
	var client mqtt.Client
	lines.Serve(func(request lines.Request) (lines.Answer, error) {
		switch request.Op {
		case "connect":
			client = mqtt.NewClient(options(request))
			token := client.Connect()
			err := wait(token)
			present := err == nil && token.(*mqtt.ConnectToken).SessionPresent()
			return lines.Answer{OK: map[string]any{"session_present": present}}, err
		case "subscribe":
			return subscribe(client, request)
		case "unsubscribe":
			return lines.Answer{}, wait(client.Unsubscribe(request.Filter))
		case "publish":
			token := client.Publish(request.Topic, request.QoS, request.Retain, request.Payload)
			return lines.Answer{Wait: func() error { return wait(token) }}, nil
		case "disconnect":
			client.Disconnect(250)
			return lines.Answer{}, nil
		}
		return lines.Answer{}, fmt.Errorf("unknown operation %q", request.Op)
	})
}

func options(request lines.Request) *mqtt.ClientOptions {
	url := fmt.Sprintf("tcp://%s:%d", request.Host, request.Port)
	if request.Transport == "ws" {
		url = fmt.Sprintf("ws://%s:%d%s", request.Host, request.Port, request.Path)
	}
	options := mqtt.NewClientOptions().AddBroker(url).SetClientID(request.ClientID).SetProtocolVersion(4)
	options.SetCleanSession(request.Clean).SetAutoReconnect(false).SetConnectTimeout(timeout)
	// Messages of a resumed session come before any subscription of this process names a handler.
	options.SetDefaultPublishHandler(func(_ mqtt.Client, message mqtt.Message) {
		lines.Emit(lines.Message{
			Event:   "message",
			Topic:   message.Topic(),
			Payload: message.Payload(),
			QoS:     message.Qos(),
			Retain:  message.Retained(),
		})
	})
	options.SetConnectionLostHandler(func(mqtt.Client, error) { lines.Closed() })
	if will := request.Will; will != nil {
		options.SetBinaryWill(will.Topic, will.Payload, will.QoS, will.Retain)
	}
	return options
}

func subscribe(client mqtt.Client, request lines.Request) (lines.Answer, error) {
	filters := make(map[string]byte)
	for _, filter := range request.Filters {
		filters[filter] = request.QoS
	}
	token := client.SubscribeMultiple(filters, nil)
	if err := wait(token); err != nil {
		return lines.Answer{}, err
	}
	var granted []int
	results := token.(*mqtt.SubscribeToken).Result()
	for _, filter := range request.Filters {
		granted = append(granted, int(results[filter]))
	}
	return lines.Answer{OK: map[string]any{"granted": granted}}, nil
}

func wait(token mqtt.Token) error {
	if !token.WaitTimeout(timeout) {
		return errors.New("no acknowledgement")
	}
	return token.Error()
}
