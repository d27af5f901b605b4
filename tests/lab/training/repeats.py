"""What two runs of one configuration have in common: everything but their times."""

TIMES = ("seconds", "process_seconds", "images_per_second")


def numbers(records):
    """The records without their times; as text, because NaN equals itself there."""
    return [repr({name: value for name, value in record.as_dict().items() if name not in TIMES}) for record in records]
