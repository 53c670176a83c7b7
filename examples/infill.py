"""Fill the gaps of texts with the demo model: the text around a gap is on the canvas from the first step on.

python examples/infill.py [--model MODEL] [--seed 0]
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from mlx_diffgemma import Gap, GapFilled, load


def main() -> None:
    """Fill a record with gaps of several lengths, a count with a gap of four tokens, and a function as events."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    session = load(arguments.model)
    config = replace(session.defaults, seed=arguments.seed)

    record = '{"name": "Ada", "age": <gap:1-3>, "city": "<gap:1-2>"}'
    print(session.infill(record, "Give JSON: Ada is 33 and lives in Oslo.", config).text)

    print(session.infill("12 13 14<gap:4> 17 18", "Count from 12 to 18", config).text)

    function = ["def area(width, height):\n    return ", Gap(3, 3)]
    asked = "Write a Python function area that multiplies width and height"
    for event in session.stream_infill(function, asked, config):
        if isinstance(event, GapFilled):
            print(f"gap {event.gap + 1}: {event.text}")


if __name__ == "__main__":
    main()
