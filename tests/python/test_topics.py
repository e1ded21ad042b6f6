import ferromq
import pytest


@pytest.mark.parametrize(
    ("pattern", "topic", "matches"),
    [
        ("a/b", "a/b", True),
        ("a/+", "a/b", True),
        ("a/+", "a/b/c", False),
        ("a/#", "a", True),
        ("#", "a/b/c", True),
        ("#", "$SYS/broker", False),
        ("$SYS/#", "$SYS/broker", True),
        ("$share/group/a/+", "a/b", True),
        ("plant/{line}/temp", "plant/7/temp", True),
        ("plant/{line}/temp", "plant/7/8/temp", False),
        ("plant/{rest:#}", "plant/7/8/temp", True),
    ],
)
def test_a_topic_matches_a_filter_as_the_specification_says(pattern, topic, matches):
    assert ferromq.topic_matches(pattern, topic) is matches


@pytest.mark.parametrize(
    ("pattern", "plain", "names"),
    [
        ("plant/{line}/temp", "plant/+/temp", {"line": 1}),
        ("{a}/+/{b}", "+/+/+", {"a": 0, "b": 2}),
        ("plant/{rest:#}", "plant/#", {"rest": 1}),
        ("$share/group/plant/{line}", "$share/group/plant/+", {"line": 3}),
        ("plain/#", "plain/#", {}),
        ("json/{}/x{y}", None, None),
        ("json/x{y}", "json/x{y}", {}),
    ],
)
def test_a_pattern_is_a_filter_with_names(pattern, plain, names):
    if plain is None:
        with pytest.raises(ferromq.InvalidTopic):
            ferromq.parse_pattern(pattern)
    else:
        assert ferromq.parse_pattern(pattern) == (plain, names)


@pytest.mark.parametrize("pattern", ["{a}/{a}", "{rest:#}/more", "{1}", "{a b}", "a/{b/c", "a/b}", "a/#/b", "", "a+"])
def test_a_pattern_that_cannot_be_is_refused(pattern):
    with pytest.raises(ferromq.InvalidTopic) as refused:
        ferromq.parse_pattern(pattern)
    assert isinstance(refused.value, ValueError)


@pytest.mark.parametrize("topic", ["", "a/+", "a/#", "a\0b"])
def test_a_topic_that_cannot_be_published_to_is_refused(topic):
    with pytest.raises(ferromq.InvalidTopic):
        ferromq.validate_topic(topic)


def test_valid_topics_and_filters_pass():
    ferromq.validate_topic("plant/7/{literal}")
    ferromq.validate_filter("plant/+/#")
    with pytest.raises(ferromq.InvalidTopic, match="must be the last level"):
        ferromq.validate_filter("plant/#/x")
