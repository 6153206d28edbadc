class LocalBilling:
    def __init__(self, engine: object) -> None:
        pass
