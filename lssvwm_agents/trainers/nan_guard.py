"""Skip updates whose loss or gradient is not finite; stop when that does not end."""

from __future__ import annotations


class NanGuard:
    """Counts the updates skipped because a loss or gradient norm was not finite.

    Args:
        max_in_a_row: So many in a row raise an error.
        skipped: Skipped so far, in a resumed run.
    """

    def __init__(self, max_in_a_row: int, skipped: int = 0) -> None:
        self.max_in_a_row = max_in_a_row
        self.skipped = skipped
        self._in_a_row = 0

    def accept(self, finite: bool, update: int) -> bool:
        """Whether to apply this update.

        Raises:
            FloatingPointError: After ``max_in_a_row`` rejected updates in a row.
        """
        if finite:
            self._in_a_row = 0
            return True
        self.skipped += 1
        self._in_a_row += 1
        if self._in_a_row >= self.max_in_a_row:
            raise FloatingPointError(
                f"the loss or its gradient was not finite in {self._in_a_row} updates in a row, the last "
                f"being update {update}: lower the learning rate, or look at the data."
            )
        return False
