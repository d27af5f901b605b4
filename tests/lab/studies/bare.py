"""A laboratory that stores nothing and shows nothing: what an analytic study needs to run."""


class Lab:
    workers = 1

    def keep_all(self, pieces, what):
        return [piece.compute() for piece in pieces]

    def track(self, items, total, what):
        return items
