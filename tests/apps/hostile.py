"""Objects that misbehave, made from a specification that is plain data (see tests/support/hostile.py)."""

import array
import base64
import gc
import json
import sys
import threading
import time

# What misbehaving objects raise is nobody's fault; the rest is to be seen in the log.
PURPOSE = (ZeroDivisionError, RecursionError)


# What can be a base; of anything else the object is a bare one.
BASES = (dict, list, tuple, str, bytes, bytearray, int, float)


def unraisable(told):
    if not isinstance(told.exc_value, PURPOSE):
        sys.__unraisablehook__(told)


sys.unraisablehook = unraisable


def program(query):
    return json.loads(base64.urlsafe_b64decode(query))


def misbehaving(name, base, how, deed):
    left = 100  # calls, for whoever asks until there is an end

    def method(self, *args):
        nonlocal left
        left -= 1
        if left < 0:
            raise ZeroDivisionError(name)
        if how == "raise":
            raise ZeroDivisionError(name)
        if how == "recurse":
            return method(self, *args)
        if how == "wrong":
            return (None, 3.5, [], b"", "", -1, 1 << 70)[hash(name) % 7]
        deed()
        usual = getattr(base, name, None)
        return usual(self, *args) if usual is not None else None

    return method


def evil(value, how, names, deed):
    base = type(value) if type(value) in BASES else object
    members = {name: misbehaving(name, base, how, deed) for name in names}
    if "__eq__" in members and "__hash__" not in members:
        members["__hash__"] = base.__hash__
    kind = type("Evil", (base,), members)
    return kind() if base is object else kind(value)


class Maker:
    """Makes objects, and lets those that are made do a deed while they are looked at."""

    def __init__(self, deeds=None):
        self.deeds = {
            "gc": gc.collect,
            "clear": self.clear,
            "grow": self.grow,
            "switch": lambda: time.sleep(0),
            **(deeds or {}),
        }
        self.made = []  # containers, to be changed while they are in use
        self.depth = 0

    def clear(self):
        for container in self.made:
            container.clear()

    def grow(self):
        for container in self.made:
            if isinstance(container, bytearray):
                container.extend(b"more" * 100)
            elif isinstance(container, list):
                container.append(b"more")
            else:
                container["more"] = b"more"

    def deed(self, name):
        def do():
            if self.depth < 3:
                self.depth += 1
                try:
                    self.deeds.get(name, gc.collect)()
                except Exception:
                    pass
                finally:
                    self.depth -= 1

        return do

    def container(self, value):
        self.made.append(value)
        return value

    def make(self, spec):
        if isinstance(spec, list):
            return self.container([self.make(item) for item in spec])
        if not isinstance(spec, dict):
            return spec
        kind, value = spec["make"], spec.get("of")
        if kind == "evil":
            return evil(self.make(value), spec["how"], spec["names"], self.deed(spec["deed"]))
        if kind == "dict":
            made = {}
            for key, item in value:
                try:
                    made[self.make(key)] = self.make(item)
                except (TypeError, *PURPOSE):  # not hashable
                    pass
            return self.container(made)
        if kind == "tuple":
            return tuple(self.make(item) for item in value)
        if kind == "generator":
            return (self.make(item) for item in value)
        if kind == "itself":
            made = self.make(value)
            made.append(made)
            return made
        return self.bytes(kind, value.encode("latin-1"))

    def bytes(self, kind, value):
        if kind == "bytes":
            return value
        if kind == "bytearray":
            return self.container(bytearray(value))
        if kind == "view":
            return memoryview(self.container(bytearray(value)))
        if kind == "strided":
            return memoryview(value + value)[::2]
        if kind == "words":
            return array.array("H", value + value)
        if kind == "released":
            view = memoryview(value)
            view.release()
            return view
        return float(len(value))


def in_thread(function):
    """Runs it in another thread; what it raises is its own."""

    def run():
        try:
            function()
        except Exception:
            pass

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
