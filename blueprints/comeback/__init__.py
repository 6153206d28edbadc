from flask import Blueprint

blueprint = Blueprint("comeback", __name__)
