namespace MicroVm.Bus.Counters;

/// <summary>
/// What the log says of a driver that breaks rules: each rule once, at most <see cref="MaxLines"/> of them, and at the end
/// how often it went on, since a guest decides how often that is. Any thread.
/// </summary>
public sealed class DriverFaultLog
{
    /// <summary>Lines of one device, besides the one at its end.</summary>
    public const int MaxLines = 8;

    private readonly Lock _lock = new();
    private readonly HashSet<string> _told = new(StringComparer.Ordinal);
    private readonly string _device;
    private readonly Action<string> _write;
    private long _untold;

    /// <summary>Makes the log of one device.</summary>
    /// <param name="device">The device's name.</param>
    /// <param name="write">Writes a line; <see cref="VmmLog.Write"/> when null.</param>
    public DriverFaultLog(string device, Action<string>? write = null)
    {
        _device = device;
        _write = write ?? VmmLog.Write;
    }

    /// <summary>The driver broke a rule: written when it is the first time.</summary>
    public void Add(string reason)
    {
        lock (_lock)
        {
            if (_told.Count >= MaxLines || !_told.Add(reason))
            {
                _untold++;
                return;
            }
        }

        _write($"{_device}: the guest's driver broke a rule, device stopped until it is reset: {reason}");
    }

    /// <summary>Writes how often more it did so, if it did.</summary>
    public void End()
    {
        long untold;
        lock (_lock)
        {
            (untold, _untold) = (_untold, 0);
        }

        if (untold > 0)
        {
            _write($"{_device}: the guest's driver broke rules {untold} more times");
        }
    }
}
