/* Eclipse Paho's client in C does one thing, alone in its process: paho receive|publish HOST PORT COUNT QOS.
 * The same lines as of main.rs. Built by __main__.py where MQTTAsync.h is installed. */

#include <MQTTAsync.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#define TOPIC "bench/clients"
#define END "bench/end" /* the last message, with QoS 1 */
#define PAYLOAD "0123456789abcdef"
#define WINDOW 100

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static long acknowledged, received, bytes;
static int is_ready, is_over, has_failed;

static void fail(const char *what)
{
	fprintf(stderr, "paho: %s\n", what);
	exit(1);
}

static void signal_with(int *flag)
{
	pthread_mutex_lock(&lock);
	*flag = 1;
	pthread_cond_signal(&changed);
	pthread_mutex_unlock(&lock);
}

static void on_ready(void *context, MQTTAsync_successData *data)
{
	(void)context, (void)data;
	signal_with(&is_ready);
}

static void on_failure(void *context, MQTTAsync_failureData *data)
{
	(void)context, (void)data;
	signal_with(&has_failed);
}

static void on_acknowledged(void *context, MQTTAsync_successData *data)
{
	(void)context, (void)data;
	pthread_mutex_lock(&lock);
	acknowledged++;
	pthread_cond_signal(&changed);
	pthread_mutex_unlock(&lock);
}

static int on_message(void *context, char *topic, int length, MQTTAsync_message *message)
{
	(void)context;
	(void)length;
	if (!strcmp(topic, END)) {
		signal_with(&is_over);
	} else {
		received++;
		bytes += message->payloadlen;
	}
	MQTTAsync_freeMessage(&message);
	MQTTAsync_free(topic);
	return 1;
}

static void wait_ready(void)
{
	pthread_mutex_lock(&lock);
	while (!is_ready && !has_failed)
		pthread_cond_wait(&changed, &lock);
	int failed = has_failed;
	is_ready = 0;
	pthread_mutex_unlock(&lock);
	if (failed)
		fail("the server refused, or is not there");
}

static void wait_for_word(void)
{
	char line[16];
	puts("ready");
	fflush(stdout);
	if (!fgets(line, sizeof line, stdin))
		fail("nobody says to begin");
}

static long long cpu_ns(void)
{
	struct rusage usage;
	getrusage(RUSAGE_SELF, &usage);
	return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000LL
		+ (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000LL;
}

static long long wall_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void publish_one(MQTTAsync client, const char *topic, int qos)
{
	MQTTAsync_responseOptions options = MQTTAsync_responseOptions_initializer;
	options.onSuccess = on_acknowledged;
	options.onFailure = on_failure;
	if (MQTTAsync_send(client, topic, sizeof PAYLOAD - 1, PAYLOAD, qos, 0, &options) != MQTTASYNC_SUCCESS)
		fail("MQTTAsync_send refused");
}

static void publish(MQTTAsync client, long count, int qos)
{
	for (long sent = 0; sent < count; sent++) {
		/* Its queue has no bound of its own that would wait: QoS 0 is "successful" when it is written. */
		pthread_mutex_lock(&lock);
		while (sent - acknowledged >= WINDOW && !has_failed)
			pthread_cond_wait(&changed, &lock);
		pthread_mutex_unlock(&lock);
		publish_one(client, TOPIC, qos);
	}
	publish_one(client, END, 1);
	pthread_mutex_lock(&lock);
	while (acknowledged <= count && !has_failed)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
	if (has_failed)
		fail("a publication failed");
}

int main(int argc, char **argv)
{
	if (argc != 6)
		fail("usage: paho receive|publish HOST PORT COUNT QOS");
	int receives = !strcmp(argv[1], "receive"), qos = atoi(argv[5]);
	char url[256];
	snprintf(url, sizeof url, "tcp://%s:%s", argv[2], argv[3]);
	long count = atol(argv[4]);

	MQTTAsync client;
	MQTTAsync_createOptions create = MQTTAsync_createOptions_initializer;
	create.maxBufferedMessages = 100 * WINDOW;
	if (MQTTAsync_createWithOptions(&client, url, "bench", MQTTCLIENT_PERSISTENCE_NONE, NULL, &create))
		fail("MQTTAsync_create refused");
	MQTTAsync_setCallbacks(client, NULL, NULL, on_message, NULL);
	MQTTAsync_connectOptions connect = MQTTAsync_connectOptions_initializer;
	connect.keepAliveInterval = 60;
	connect.cleansession = 1;
	connect.maxInflight = WINDOW;
	connect.onSuccess = on_ready;
	connect.onFailure = on_failure;
	if (MQTTAsync_connect(client, &connect) != MQTTASYNC_SUCCESS)
		fail("MQTTAsync_connect refused");
	wait_ready();
	if (receives) {
		MQTTAsync_responseOptions options = MQTTAsync_responseOptions_initializer;
		options.onSuccess = on_ready;
		options.onFailure = on_failure;
		char *topics[] = {TOPIC, END};
		int grades[] = {qos, 1};
		if (MQTTAsync_subscribeMany(client, 2, topics, grades, &options) != MQTTASYNC_SUCCESS)
			fail("MQTTAsync_subscribe refused");
		wait_ready();
	}

	wait_for_word();
	long long cpu = cpu_ns(), wall = wall_ns();
	if (receives) {
		pthread_mutex_lock(&lock);
		while (!is_over)
			pthread_cond_wait(&changed, &lock);
		pthread_mutex_unlock(&lock);
		count = received;
		if (bytes != count * (long)(sizeof PAYLOAD - 1))
			fail("what came is not what was sent");
	} else {
		publish(client, count, qos);
	}
	printf("{\"count\": %ld, \"cpu_ns\": %lld, \"wall_ns\": %lld}\n", count, cpu_ns() - cpu, wall_ns() - wall);
	return 0;
}
