using Xunit.Abstractions;
using Xunit.Sdk;

namespace MicroVm.EndToEnd.Runner;

/// <summary>Collects the tests that are found.</summary>
internal sealed class Discovery : LongLivedMarshalByRefObject, IMessageSink, IDisposable
{
    private readonly List<ITestCase> _cases = [];
    private readonly ManualResetEventSlim _done = new();

    /// <summary>Waits for the end of the search.</summary>
    public IReadOnlyList<ITestCase> Wait()
    {
        _done.Wait();
        return _cases;
    }

    public bool OnMessage(IMessageSinkMessage message)
    {
        switch (message)
        {
            case ITestCaseDiscoveryMessage found:
                lock (_cases)
                {
                    _cases.Add(found.TestCase);
                }

                break;
            case IDiscoveryCompleteMessage:
                _done.Set();
                break;
        }

        return true;
    }

    public void Dispose() => _done.Dispose();
}
