"""A laboratory that stores nothing and shows nothing: what an analytic study needs to run."""


class Lab:
    workers = 1

    def keep(self, name, key, compute):
        return compute()

    def track(self, items, total, what):
        return items
