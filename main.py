"""The published commands start here: `python main.py model=dtp network=simple_vgg datamodule=cifar10`."""

from targetprop.app.cli import main

if __name__ == "__main__":
    main()
