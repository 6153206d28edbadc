class SmtpMailer:
    def __init__(self, app: object) -> None:
        pass
