from flask import Blueprint

blueprint = Blueprint("auth", __name__)

from flask_login import LoginManager

login_manager = LoginManager()
