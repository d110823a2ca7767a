"""The play page: a person walks in what a world model imagines, in a browser.

From the inside out: ``dream`` (rules, nothing changed in place), ``memory_meter``, ``plan_to``, ``walk`` (one
person's walk), ``messages`` (what goes over the wire), ``sessions``, ``app`` (ASGI), ``server``.
"""
