"""What can be wrong with a network, its weights or an image somebody names."""


class ModelError(Exception):
    """The model can't be used as asked; the message is one line for the person."""


class UnknownModelError(ModelError):
    """No network has that name."""


class WeightsFileError(ModelError):
    """A weights file is missing, damaged, of no known format, or no MobileNet."""


class WrongVariantError(ModelError):
    """A weights file holds another variant than the one asked for."""


class ClassCountError(ModelError):
    """A weights file has another number of classes than asked for."""


class ImageError(ModelError):
    """A file is no image, or a folder of images or its labels can't be read."""


class PreprocessingError(ModelError):
    """Preprocessing is described wrongly, or for other images than the network takes."""


class TrainingError(ModelError):
    """A network can't be trained as asked, or its training missed the accuracy it has to reach."""
