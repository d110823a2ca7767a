"""The commands of ``lssvwm``, one module each: a frozen dataclass of arguments, and ``run(args)``.

A command module must be quick to import, so that its ``--help`` is: heavy imports belong inside ``run``.
"""
